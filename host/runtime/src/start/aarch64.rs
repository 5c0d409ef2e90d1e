//! Where the process starts on 64-bit Arm.

use std::arch::{global_asm, naked_asm};

use super::{initialize, main};

// What the linker writes into executables.
global_asm!(
    ".pushsection .interp,\"aR\",@progbits",
    ".asciz \"/lib/ld-linux-aarch64.so.1\"",
    ".popsection",
);

/// Calls `__libc_start_main(main, argc, argv, init, fini, rtld_fini, stack_end)` with what the kernel has put on the stack,
/// and the function that the dynamic linker has left in `x0`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn jimu_start() -> ! {
    naked_asm!(
        // The end of the chain of frames.
        "mov x29, #0",
        "mov x30, #0",
        "mov x5, x0",
        "ldr x1, [sp]",
        "add x2, sp, #8",
        "mov x6, sp",
        "adrp x0, {main}",
        "add x0, x0, :lo12:{main}",
        "adrp x3, {initialize}",
        "add x3, x3, :lo12:{initialize}",
        "mov x4, #0",
        "bl __libc_start_main",
        "udf #0",
        initialize = sym initialize,
        main = sym main,
    )
}
