# OctavoFlags.cmake - how Octavo's own code is compiled: warnings, floating point, visibility, instruction sets.
include(CheckCCompilerFlag)

string(TOLOWER "${CMAKE_SYSTEM_PROCESSOR}" octavo_processor)
set(octavo_float -ffp-contract=off) # the reference defines every bit; a fused multiply-add is written where it is meant

function(octavo_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion ${octavo_float})
  if(OCTAVO_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(CMAKE_C_COMPILER_ID MATCHES Clang) # says so of every `omp simd` loop that it leaves scalar
    target_compile_options(${target} PRIVATE -Wno-pass-failed)
  endif()
  if(NOT OCTAVO_HAVE_OPENMP)
    target_compile_options(${target} PRIVATE -Wno-unknown-pragmas)
  endif()
  set_target_properties(${target} PROPERTIES C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
endfunction()

function(octavo_compile_settings target)
  octavo_warnings(${target})
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
endfunction()

# Before 1.0 the SONAME is 0.MINOR.
function(octavo_shared_library target export_name)
  set_target_properties(${target} PROPERTIES LINKER_LANGUAGE C VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR} EXPORT_NAME ${export_name} INSTALL_RPATH "$ORIGIN")
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  if(NOT OCTAVO_SANITIZE AND NOT OCTAVO_FUZZ) # their run time is in the program only
    target_link_options(${target} PRIVATE -Wl,--no-undefined)
  endif()
endfunction()

if(OCTAVO_SANITIZE)
  add_compile_options(-fsanitize=${OCTAVO_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${OCTAVO_SANITIZE})
endif()
if(OCTAVO_FUZZ)
  if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "OCTAVO_FUZZ needs clang (-DCMAKE_C_COMPILER=clang): libFuzzer belongs to it")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
if(OCTAVO_COVERAGE)
  add_compile_options(-fprofile-instr-generate -fcoverage-mapping)
  add_link_options(-fprofile-instr-generate)
endif()

# ---- instruction sets -----------------------------------------------------------------------------------------------

set(octavo_avx2_flags -mavx2 -mfma -mf16c)
set(octavo_avx512_flags -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c)
set(octavo_avx512_vnni_flags ${octavo_avx512_flags} -mavx512vnni)
set(octavo_avx512_bf16_flags ${octavo_avx512_vnni_flags} -mavx512bf16)
set(octavo_amx_flags ${octavo_avx512_bf16_flags} -mavx512vbmi -mamx-tile -mamx-int8 -mamx-bf16)

set(octavo_isas "")
if(octavo_processor MATCHES "^(x86_64|amd64)$")
  foreach(isa avx2 avx512 avx512_vnni avx512_bf16 amx)
    list(JOIN octavo_${isa}_flags " " flags)
    check_c_compiler_flag("${flags}" OCTAVO_COMPILER_HAS_${isa})
    if(OCTAVO_COMPILER_HAS_${isa})
      list(APPEND octavo_isas ${isa})
    endif()
  endforeach()
elseif(octavo_processor MATCHES "^(aarch64|arm64)$")
  set(octavo_neon_flags "")
  set(octavo_isas neon)
endif()

# Appends the ISA folders that this compiler can build to the list named by `out`, and their names to octavo_parts.
# Only the files of a folder get its flags. The files directly in src/cpu/, src/device/ and src/layer/ learn which folders there
# are (OCTAVO_HAVE_AVX2, ...); src/cpu/*_ISA.c is taken only together with the folder ISA.
function(octavo_add_isa_sources out)
  set(found "")
  set(have "")
  foreach(isa IN LISTS octavo_isas)
    file(GLOB files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cpu/${isa}/*.c)
    if(files)
      string(TOUPPER ${isa} name)
      list(APPEND have OCTAVO_HAVE_${name}=1)
      set_property(SOURCE ${files} APPEND PROPERTY COMPILE_OPTIONS ${octavo_${isa}_flags})
      list(APPEND found ${files})
    endif()
  endforeach()
  if(OCTAVO_HAVE_ONEDNN)
    list(APPEND have OCTAVO_HAVE_ONEDNN=1)
  endif()
  file(GLOB deciders CONFIGURE_DEPENDS
    ${PROJECT_SOURCE_DIR}/src/cpu/*.c ${PROJECT_SOURCE_DIR}/src/device/*.c ${PROJECT_SOURCE_DIR}/src/layer/*.c)
  if(deciders AND have)
    set_property(SOURCE ${deciders} APPEND PROPERTY COMPILE_DEFINITIONS ${have})
  endif()
  file(GLOB cpu_files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cpu/*.c ${PROJECT_SOURCE_DIR}/src/cpu/generic/*.c)
  if(cpu_files OR found) # neither errno nor floating-point traps are part of the contract of a kernel
    set_property(SOURCE ${cpu_files} ${found} APPEND PROPERTY COMPILE_OPTIONS -fno-math-errno -fno-trapping-math)
  endif()
  set(sources ${${out}} ${found})
  foreach(isa avx2 avx512 avx512_vnni avx512_bf16 amx neon)
    string(TOUPPER ${isa} name)
    if(NOT OCTAVO_HAVE_${name}=1 IN_LIST have)
      list(FILTER sources EXCLUDE REGEX "/src/cpu/[^/]*_${isa}\\.c$")
    endif()
  endforeach()
  set(${out} ${sources} PARENT_SCOPE)
  list(TRANSFORM have REPLACE "OCTAVO_HAVE_(.*)=1" "\\1")
  list(JOIN have " " words)
  string(TOLOWER "${octavo_parts} ${words}" words)
  set(octavo_parts "${words}" PARENT_SCOPE)
endfunction()
