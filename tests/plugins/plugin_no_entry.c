/* plugin_no_entry.c - a library that is no CUDA backend. */
int octavo_plugin_no_entry(void);
int octavo_plugin_no_entry(void) { return 0; }
