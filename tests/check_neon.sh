#!/bin/sh
# check_neon.sh - cross-builds kerncheck for 64-bit Arm and runs it under qemu-user.
# check_neon.sh SOURCE_DIR BUILD_DIR QEMU
set -eu
source=$1 build=$2 qemu=$3
cmake -S "$source" -B "$build" -DCMAKE_TOOLCHAIN_FILE="$source/cmake/aarch64.cmake" -DOCTAVO_WERROR=ON \
    -DOCTAVO_TESTS=ON -DOCTAVO_LM=OFF -DOCTAVO_ONEDNN=OFF -DOCTAVO_CUDA=OFF
cmake --build "$build" --target kerncheck --parallel 2
"$qemu" -L /usr/aarch64-linux-gnu "$build/tests/kerncheck" --quick
