/* model_hash.h - tells checkpoints apart. */
#ifndef OCTAVO_CLI_MODEL_HASH_H
#define OCTAVO_CLI_MODEL_HASH_H

enum { MODEL_HASH_BYTES = 17 };

/* Sixteen hexadecimal digits of the names, sizes and samples of the content of a folder's JSON and safetensors files: another
 * training step changes all weights, so samples suffice. EXIT_DONE, or EXIT_REFUSED after a sentence. */
int model_hash_folder(const char *folder, char hash[MODEL_HASH_BYTES]);

#endif
