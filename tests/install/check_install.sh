#!/bin/sh
# check_install.sh - installs into a prefix and under DESTDIR, then builds and runs every example from there.
# check_install.sh BUILD_DIR SOURCE_DIR CC [CXX]
set -eu
build=$1 source=$2 cc=$3 cxx=${4-}
case $cxx in *NOTFOUND*) cxx= ;; esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
set -- "$source"/examples/*.c
[ -e "$1" ] || { echo "no examples"; exit 0; }

die() { echo "check_install: $*" >&2; exit 1; }

# compile COMPILER LANGUAGE STANDARD SOURCE OUT: with octavo alone where that is enough, else with octavo-lm.
compile() {
    for module in octavo octavo-lm; do
        # shellcheck disable=SC2046 # pkg-config's answer is a list of options
        if "$1" -x "$2" -std="$3" -Wall -Wextra -Werror $(pkg-config --cflags "$module") "$4" -x none -o "$5" \
            $(pkg-config --libs "$module") -lm 2>"$work/compiler.log"; then return 0; fi
        pkg-config --exists octavo-lm || break
    done
    cat "$work/compiler.log" >&2
    die "${4##*/} does not build as $2 through pkg-config"
}

# through_pkg_config ROOT SOURCES...: builds and runs as C and as C++.
through_pkg_config() {
    root=$1; shift
    pc=$(find "$root" -name octavo.pc)
    [ -n "$pc" ] || die "no octavo.pc under the prefix"
    PKG_CONFIG_PATH=$(dirname "$pc"); export PKG_CONFIG_PATH
    libraries=$(pkg-config --variable=libdir octavo)
    for example in "$@"; do
        compile "$cc" c c11 "$example" "$work/example"
        (cd "$source" && LD_LIBRARY_PATH=$libraries "$work/example") || die "${example##*/} failed (C, pkg-config)"
        [ -n "$cxx" ] || continue
        compile "$cxx" c++ c++17 "$example" "$work/example"
        (cd "$source" && LD_LIBRARY_PATH=$libraries "$work/example") || die "${example##*/} failed (C++, pkg-config)"
    done
}

# through_cmake ROOT SOURCES...: the same with find_package.
through_cmake() {
    root=$1; shift
    mkdir "$work/user"
    {
        echo 'cmake_minimum_required(VERSION 3.25)'
        echo "project(user LANGUAGES C ${cxx:+CXX})"
        echo 'find_package(octavo 0.1 REQUIRED)'
        echo 'set(libraries octavo::octavo)'
        echo 'if(TARGET octavo::lm)'
        echo '  list(APPEND libraries octavo::lm)'
        echo 'endif()'
        for example in "$@"; do
            name=$(basename "$example" .c)
            echo "add_executable(${name}_c \"$example\")"
            echo "target_link_libraries(${name}_c \${libraries} m)"
            [ -n "$cxx" ] || continue
            cp "$example" "$work/user/$name.cpp"
            echo "add_executable(${name}_cpp $name.cpp)"
            echo "target_link_libraries(${name}_cpp \${libraries} m)"
        done
    } >"$work/user/CMakeLists.txt"
    {
        cmake -S "$work/user" -B "$work/user/build" -DCMAKE_PREFIX_PATH="$root" -DCMAKE_C_COMPILER="$cc" \
            ${cxx:+-DCMAKE_CXX_COMPILER="$cxx"} && cmake --build "$work/user/build"
    } >"$work/log" 2>&1 || { cat "$work/log" >&2; die "the examples do not build through find_package"; }
    for example in "$@"; do
        name=$(basename "$example" .c)
        (cd "$source" && "$work/user/build/${name}_c") || die "$name failed (C, CMake)"
        [ -z "$cxx" ] || (cd "$source" && "$work/user/build/${name}_cpp") || die "$name failed (C++, CMake)"
    done
}

# as_subdirectory: what FetchContent does. Configuring is enough: the targets exist, and the tests are not dragged in.
as_subdirectory() {
    mkdir "$work/parent"
    printf '%s\n' 'cmake_minimum_required(VERSION 3.25)' 'project(parent LANGUAGES C)' "add_subdirectory(\"$source\" octavo)" \
        'if(NOT TARGET octavo::octavo OR TARGET kerncheck OR CMAKE_BUILD_TYPE)' '  message(FATAL_ERROR "not a good guest")' \
        'endif()' >"$work/parent/CMakeLists.txt"
    cmake -S "$work/parent" -B "$work/parent/build" -DCMAKE_C_COMPILER="$cc" >"$work/log" 2>&1 ||
        { cat "$work/log" >&2; die "add_subdirectory does not work"; }
}

cmake --install "$build" --prefix "$work/prefix" >"$work/log" || { cat "$work/log"; die "cmake --install failed"; }
DESTDIR="$work/stage" cmake --install "$build" --prefix /opt/octavo >"$work/log" || { cat "$work/log"; die "DESTDIR failed"; }
(cd "$work/prefix" && find . | sort) >"$work/in_prefix"
(cd "$work/stage/opt/octavo" && find . | sort) >"$work/in_stage"
cmp "$work/in_prefix" "$work/in_stage" || die "DESTDIR installs other files than a prefix does"
if grep -rIlF -e "$build" -e "$source/src" -e "$source/include" "$work/prefix"; then die "an installed text names the build or source folder"; fi

through_pkg_config "$work/prefix" "$@"
through_pkg_config "$work/stage/opt/octavo" "$@"
through_cmake "$work/prefix" "$@"
as_subdirectory
if [ -x "$work/prefix/bin/octavo" ]; then
    "$work/prefix/bin/octavo" info >"$work/log" || die "the installed program does not start"
fi
echo "$# examples built and run from the install"
