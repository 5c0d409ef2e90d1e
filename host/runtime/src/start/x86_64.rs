//! Where the process starts on x86-64.

use std::arch::{global_asm, naked_asm};

use super::{initialize, main};

// What the linker writes into executables.
global_asm!(
    ".pushsection .interp,\"aR\",@progbits",
    ".asciz \"/lib64/ld-linux-x86-64.so.2\"",
    ".popsection",
);

/// Calls `__libc_start_main(main, argc, argv, init, fini, rtld_fini, stack_end)` with what the kernel has put on the stack,
/// and the function that the dynamic linker has left in `rdx`.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn jimu_start() -> ! {
    naked_asm!(
        // The end of the chain of frames.
        "xor ebp, ebp",
        "mov r9, rdx",
        "pop rsi",
        "mov rdx, rsp",
        "and rsp, -16",
        "push rax",
        "push rsp",
        "xor r8d, r8d",
        "lea rcx, [rip + {initialize}]",
        "lea rdi, [rip + {main}]",
        "call [rip + __libc_start_main@GOTPCREL]",
        "hlt",
        initialize = sym initialize,
        main = sym main,
    )
}
