# build_id.cmake - writes octavo_build.h: a hash of the sources and flags, and the options in words.
# cmake -DLIST=FILE -DROOT=DIR -DFLAGS=TEXT -DOPTIONS=TEXT -DOUT=FILE -P build_id.cmake
file(STRINGS ${LIST} sources)
list(SORT sources)
set(hashes "${FLAGS}\n")
foreach(source IN LISTS sources)
  file(SHA256 ${source} hash)
  file(RELATIVE_PATH name ${ROOT} ${source}) # the folder that holds the checkout must not change the id
  string(APPEND hashes "${name} ${hash}\n")
endforeach()
string(SHA256 id "${hashes}")
string(SUBSTRING ${id} 0 16 id)
file(WRITE ${OUT} "/* octavo_build.h - written by cmake/build_id.cmake. */
#define OCTAVO_BUILD_ID \"${id}\"
#define OCTAVO_BUILD_OPTIONS \"${OPTIONS}\"
")
