# OctavoCuda.cmake - liboctavo-cuda: every .cu file of src/cuda by nvcc alone, so that a machine with a CUDA toolkit needs no more.
# Machine code for compute capability 8.0 and 9.0 (with its own instructions), and PTX of 8.0 for all that is newer.
set(octavo_cuda_plugin ${PROJECT_BINARY_DIR}/liboctavo-cuda.so)
set(OCTAVO_CUDA_CODE "80;90a" CACHE STRING "compute capabilities to make machine code for; of the first, PTX, too")
mark_as_advanced(OCTAVO_CUDA_CODE)
set(octavo_nvcc_sm90 -gencode arch=compute_90a,code=sm_90a) # what sm90/ holds is for that alone
set(octavo_nvcc_targets "")
set(octavo_nvcc_flags -std=c++17 -O3 -fmad=false -Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra,-ffp-contract=off)
set(ptx "")
foreach(code IN LISTS OCTAVO_CUDA_CODE)
  if(NOT ptx)
    set(ptx ",compute_${code}")
  else()
    set(ptx ",")
  endif()
  if(ptx STREQUAL ",")
    list(APPEND octavo_nvcc_targets -gencode arch=compute_${code},code=sm_${code})
  else()
    list(APPEND octavo_nvcc_targets -gencode arch=compute_${code},code=[sm_${code}${ptx}])
  endif()
endforeach()
if(OCTAVO_WERROR)
  list(APPEND octavo_nvcc_flags -Werror=all-warnings)
endif()

file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS src/cuda/*.cu)
# cuBLASLt is loaded at run time, from the toolkit or wherever the loader looks: only its header is needed.
find_path(OCTAVO_CUBLASLT_INCLUDE cublasLt.h PATHS ${CUDAToolkit_INCLUDE_DIRS} NO_DEFAULT_PATH)
mark_as_advanced(OCTAVO_CUBLASLT_INCLUDE)
if(OCTAVO_CUBLASLT_INCLUDE)
  list(FILTER cuda_sources EXCLUDE REGEX "cuda_blas_none\\.cu$")
else()
  list(FILTER cuda_sources EXCLUDE REGEX "cuda_blas_lt\\.cu$")
endif()
set(cuda_objects "")
foreach(source IN LISTS cuda_sources)
  get_filename_component(name ${source} NAME_WE)
  set(object ${PROJECT_BINARY_DIR}/cuda/${name}.o)
  set(targets ${octavo_nvcc_targets})
  if(source MATCHES "/cuda/sm90/")
    set(targets ${octavo_nvcc_sm90})
  endif()
  add_custom_command(OUTPUT ${object}
    COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} ${octavo_nvcc_flags} ${targets} -I${PROJECT_SOURCE_DIR}/src -I${PROJECT_SOURCE_DIR}/include
      -MD -MF ${object}.d -c ${source} -o ${object}
    DEPENDS ${source} DEPFILE ${object}.d COMMENT "Building CUDA object ${name}" VERBATIM)
  list(APPEND cuda_objects ${object})
endforeach()
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/cuda)

# The version and the build id are the library's own.
add_library(octavo_cuda_version OBJECT src/base/version.c ${build_header})
octavo_compile_settings(octavo_cuda_version)
target_include_directories(octavo_cuda_version PRIVATE ${PROJECT_BINARY_DIR}/generated)
add_dependencies(octavo_cuda_version octavo_build_header)

add_custom_command(OUTPUT ${octavo_cuda_plugin}
  COMMAND ${CUDAToolkit_NVCC_EXECUTABLE} -shared -cudart static -Xlinker --no-undefined -Xlinker --version-script=${PROJECT_SOURCE_DIR}/cmake/octavo-cuda.map
    -Xlinker -rpath=${CUDAToolkit_LIBRARY_DIR}
    ${cuda_objects} $<TARGET_OBJECTS:octavo_cuda_version> -o ${octavo_cuda_plugin}
  DEPENDS ${cuda_objects} ${PROJECT_SOURCE_DIR}/cmake/octavo-cuda.map octavo_cuda_version $<TARGET_OBJECTS:octavo_cuda_version> COMMENT "Linking liboctavo-cuda.so" VERBATIM
  COMMAND_EXPAND_LISTS)
add_custom_target(octavo-cuda ALL DEPENDS ${octavo_cuda_plugin})
