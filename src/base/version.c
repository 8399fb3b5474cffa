/* version.c - the version and the build, as text. */
#include "octavo/version.h"
#include "octavo_build.h"

#define TEXT_OF(number) #number
#define DOTTED(major, minor, patch) TEXT_OF(major) "." TEXT_OF(minor) "." TEXT_OF(patch)

const char *octavo_version(void) { return DOTTED(OCTAVO_VERSION_MAJOR, OCTAVO_VERSION_MINOR, OCTAVO_VERSION_PATCH); }

const char *octavo_build_id(void) { return OCTAVO_BUILD_ID; }

const char *octavo_build_options(void) { return OCTAVO_BUILD_OPTIONS; }
