#!/bin/sh
# cargo calls this in place of rustc for the crates of this workspace, and only for those (RUSTC_WORKSPACE_WRAPPER): they
# count which edges were taken and what was compared, for libFuzzer. Dependencies stay as they were built for everything
# else. Works with the stable compiler: it is LLVM that counts.
rustc="$1"
shift
case " $* " in
  *" build_script_"* | *" --print="* | *" -vV "*) exec "$rustc" "$@" ;;
esac
exec "$rustc" "$@" --cfg fuzzing -C codegen-units=16 -C debug-assertions -C overflow-checks \
  -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
  -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
  -C llvm-args=-sanitizer-coverage-trace-compares
