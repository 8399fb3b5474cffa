#!/bin/sh
# check_cuda_plugin.sh - PLUGIN NM KERNCHECK: what the plug-in exports, that it holds PTX, and that it loads or says why there is no GPU.
set -eu
plugin=$1 nm=$2 kerncheck=$3
exported=$("$nm" -D --defined-only "$plugin" | awk '{ print $3 }' | sed 's/@.*//' | sort)
if [ "$exported" != octavo_cuda_backend_of ]; then
    echo "the plug-in exports: $exported, expected octavo_cuda_backend_of alone"
    exit 1
fi
grep -aq 'sm_80' "$plugin" || { echo "the plug-in holds no code of compute capability 8.0"; exit 1; }
status=0
said=$(OCTAVO_CUDA_PATH=$plugin "$kerncheck" 1 --device cuda:0 --rounds 40 2>&1) || status=$?
echo "$said"
case $said in
*"checked at level sm80"*) exit "$status" ;;
*"checked at level"*) # and what GPUs without this one's instructions run
    OCTAVO_CUDA_LEVEL=sm80 OCTAVO_CUDA_PATH=$plugin "$kerncheck" 2 --device cuda:0 --rounds 20 || status=$?
    exit "$status" ;;
*"driver is missing"* | *"no GPU in this machine"*) echo "skipped: there is no GPU here" ;;
*) exit 1 ;;
esac
