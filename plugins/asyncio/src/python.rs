//! The interpreter that `loop.py` runs in. Its library is named by `$ASYNCIO_LIBPYTHON`, and what the loop calls is
//! handed to it as addresses, for Python's ctypes: nothing here is linked to Python.

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use worker_api::{Failure, Result};

use crate::{Outcome, Serving};

/// Runs the loop on this thread until the engine has stopped.
pub(crate) fn run(serving: Serving) -> Result<()> {
    let path = std::env::var_os("ASYNCIO_LIBPYTHON")
        .ok_or_else(|| Failure::config("$ASYNCIO_LIBPYTHON names no library"))?;
    // SAFETY: libpython's initialisers may run at any time, once; the modules that it loads need its symbols.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }
        .map_err(|error| Failure::config(format!("$ASYNCIO_LIBPYTHON: {error}")))?;
    let descriptor = serving.engine.descriptor();
    let script = CString::new(script(descriptor))
        .map_err(|_| Failure::config("the loop's script has a NUL"))?;
    SERVING.set(Some(serving));
    let ran = interpret(&library, &script);
    SERVING.take();
    // Never unloaded: CPython leaves behind what refers to it.
    std::mem::forget(library);
    ran
}

fn interpret(library: &Library, script: &CString) -> Result<()> {
    // SAFETY: the names and signatures are of CPython's stable ABI, unchanged from 3.9 on. The interpreter is made
    // and used on this thread alone.
    let status = unsafe {
        let initialize: extern "C" fn(c_int) = *symbol(library, b"Py_InitializeEx")?;
        let run: extern "C" fn(*const c_char) -> c_int = *symbol(library, b"PyRun_SimpleString")?;
        initialize(0);
        run(script.as_ptr())
    };
    if status == 0 { Ok(()) } else { Err(Failure::application("the asyncio loop has failed")) }
}

/// # Safety
/// The symbol is of that type.
unsafe fn symbol<T>(library: &Library, name: &[u8]) -> Result<libloading::os::unix::Symbol<T>> {
    // SAFETY: the caller's promise.
    unsafe { library.get(name) }.map_err(|error| Failure::config(error.to_string()))
}

fn script(descriptor: i32) -> String {
    let functions = [
        turn as extern "C" fn() -> i64 as usize,
        came as extern "C" fn() -> i64 as usize,
        woken as extern "C" fn() -> i64 as usize,
        delay as extern "C" fn(i64) -> i64 as usize,
        read as extern "C" fn(i64) -> i64 as usize,
        put as extern "C" fn(i64) -> i64 as usize,
    ];
    let addresses = functions.map(|address| address.to_string()).join(", ");
    format!("{}\nrun({descriptor}, {addresses})\n", include_str!("loop.py"))
}

extern "C" fn turn() -> i64 {
    serving(|serving| serving.turn() as i64)
}

extern "C" fn came() -> i64 {
    serving(Serving::came)
}

extern "C" fn woken() -> i64 {
    serving(|serving| serving.woken())
}

extern "C" fn delay(number: i64) -> i64 {
    serving(|serving| serving.delay(number))
}

extern "C" fn read(number: i64) -> i64 {
    serving(|serving| serving.read(number) as i64)
}

extern "C" fn put(number: i64) -> i64 {
    serving(|serving| serving.put(number) as i64)
}

fn serving(answer: impl FnOnce(&mut Serving) -> i64) -> i64 {
    SERVING.with_borrow_mut(|serving| serving.as_mut().map_or(Outcome::Failed as i64, answer))
}

thread_local! {
    static SERVING: RefCell<Option<Serving>> = const { RefCell::new(None) };
}
