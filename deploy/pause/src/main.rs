//! Holds a pod's namespaces open: sleeps, reaps orphans where it is process 1 of them, and leaves at SIGTERM or SIGINT.
//!
//! Linked statically (`-C target-feature=+crt-static`), since the image holds this one file.
#![allow(unsafe_code)]

use std::{mem::MaybeUninit, process::ExitCode, ptr};

fn main() -> ExitCode {
    let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set before anything reads it, and all pointers are to it or null.
    let signals = unsafe {
        libc::sigemptyset(signals.as_mut_ptr());
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD] {
            libc::sigaddset(signals.as_mut_ptr(), signal);
        }
        // Blocked signals wait to be taken one by one below; no handler interrupts anything.
        libc::sigprocmask(libc::SIG_BLOCK, signals.as_ptr(), ptr::null_mut());
        signals.assume_init()
    };
    loop {
        let mut signal = 0;
        // SAFETY: both pointers are to live values of the right types.
        if unsafe { libc::sigwait(&signals, &mut signal) } != 0 {
            return ExitCode::FAILURE;
        }
        if signal != libc::SIGCHLD {
            return ExitCode::SUCCESS;
        }
        // SAFETY: a null status pointer asks for none.
        while unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) } > 0 {}
    }
}
