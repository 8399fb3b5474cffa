# OctavoInstall.cmake - headers, libraries, program, CMake package and pkg-config files. DESTDIR and any prefix work.
set(octavo_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/octavo)

set(installed octavo)
if(octavo_have_lm)
  list(APPEND installed octavo-lm)
endif()
install(TARGETS ${installed} EXPORT octavoTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
if(OCTAVO_HAVE_CUDA)
  install(PROGRAMS ${octavo_cuda_plugin} DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
if(octavo_have_cli)
  install(TARGETS octavo-cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
install(FILES ${public_headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/octavo)
install(EXPORT octavoTargets NAMESPACE octavo:: DESTINATION ${octavo_package_dir})

configure_package_config_file(cmake/octavoConfig.cmake.in ${PROJECT_BINARY_DIR}/generated/octavoConfig.cmake
  INSTALL_DESTINATION ${octavo_package_dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/generated/octavoConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/generated/octavoConfig.cmake ${PROJECT_BINARY_DIR}/generated/octavoConfigVersion.cmake
  DESTINATION ${octavo_package_dir})

# The pkg-config files know the prefix from where they lie, so a staged or moved tree works as well.
file(RELATIVE_PATH octavo_pc_to_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
foreach(module IN LISTS installed)
  configure_file(cmake/${module}.pc.in ${PROJECT_BINARY_DIR}/generated/${module}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/generated/${module}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
