#!/bin/sh
# check_headers.sh - every public header compiles alone, as C11 and as C++17.
# check_headers.sh INCLUDE_DIR CC [CXX]
set -eu
include=$1 cc=$2 cxx=${3-}
case $cxx in *NOTFOUND*) cxx= ;; esac
[ -n "$cxx" ] || echo "no C++ compiler: checked as C only"

failed=0
for header in "$include"/octavo/*.h; do
    line="#include \"octavo/${header##*/}\""
    printf '%s\nextern int not_an_empty_unit;\n' "$line" |
        "$cc" -x c -std=c11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I "$include" - ||
        { echo "${header##*/}: does not compile alone as C11"; failed=1; }
    [ -n "$cxx" ] || continue
    printf '%s\n%s\n' "$line" "$line" |
        "$cxx" -x c++ -std=c++17 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I "$include" - ||
        { echo "${header##*/}: does not compile alone as C++17"; failed=1; }
done
exit "$failed"
