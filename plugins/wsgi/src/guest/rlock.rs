//! `threading.RLock` under a guest loop, whose owner is a greenlet.
//!
//! gevent and eventlet replace CPython's own type, whose owner is a thread, by the one in `threading.py`. A page of a
//! Django project acquires such locks some fifty times (`asgiref.local`), and in Python this took 5 % of its
//! instructions.
//!
//! As long as no greenlet or thread has had to wait for it, a lock is an owner and a count. After that it also has a lock
//! of the loop, for which the others wait, and behaves as the one in `threading.py`, which its methods follow.
//!
//! Waiting switches to another greenlet while functions of this module are on the stack. None holds a borrow then.

use std::cell::{Cell, RefCell};
use std::num::NonZero;
use std::rc::Rc;

use python::method;
use python::{
    Arguments, Exception, GlobalRef, Method, Native, NativeType, Object, PyErrSet, PyResult,
    Python, required,
};

/// Returns the function that creates locks. Called once the loop has patched `threading`.
pub(super) fn factory(py: Python<'_>) -> PyResult<Object<'_>> {
    let threading = py.import("threading")?;
    let greenlets = Greenlets {
        current: py.import("greenlet")?.attr_named("getcurrent")?.store(),
        allocate_lock: threading.attr_named("_allocate_lock")?.store(),
    };
    let factory = Factory { locks: NativeType::new(py)?, greenlets: Rc::new(greenlets) };
    NativeType::new(py)?.make(py, factory)?.attr_named("RLock")
}

/// The object that the function is bound to.
struct Factory {
    locks: NativeType<RLock>,
    greenlets: Rc<Greenlets>,
}

impl Native for Factory {
    const NAME: &'static std::ffi::CStr = c"jimu.RLocks";
    const METHODS: &'static [&'static [Method<Self>]] =
        &[&[Method { name: c"RLock", entry: method!(new) }]];
}

/// What the loop provides.
struct Greenlets {
    /// `greenlet.getcurrent`.
    current: GlobalRef,
    /// The function that creates locks for greenlets.
    allocate_lock: GlobalRef,
}

impl Greenlets {
    /// Returns the greenlet that runs, as an owner of locks. While Python ends there may be none: then `None` stands for
    /// it, as in gevent.
    fn current(&self, py: Python<'_>) -> Owner {
        match self.current.get(py).call([]) {
            Ok(greenlet) => greenlet.address(),
            Err(raised) => {
                raised.clear(py);
                py.none().address()
            }
        }
    }
}

/// The address of a greenlet.
type Owner = NonZero<usize>;

/// The value of a lock.
struct RLock {
    greenlets: Rc<Greenlets>,
    owner: Cell<Option<Owner>>,
    /// How often the owner has acquired it; 0 without an owner.
    count: Cell<u64>,
    /// The loop's lock, once another greenlet has had to wait: the owner holds it, too.
    block: RefCell<Option<GlobalRef>>,
}

impl Native for RLock {
    const NAME: &'static std::ffi::CStr = c"jimu.RLock";
    const METHODS: &'static [&'static [Method<Self>]] = &[&[
        Method { name: c"acquire", entry: method!(acquire) },
        Method { name: c"__enter__", entry: method!(acquire) },
        Method { name: c"release", entry: method!(release) },
        Method { name: c"__exit__", entry: method!(release) },
        Method { name: c"locked", entry: method!(locked) },
        Method { name: c"_is_owned", entry: method!(is_owned) },
        Method { name: c"_recursion_count", entry: method!(recursion_count) },
        Method { name: c"_release_save", entry: method!(release_save) },
        Method { name: c"_acquire_restore", entry: method!(acquire_restore) },
        Method { name: c"_at_fork_reinit", entry: method!(at_fork_reinit) },
    ]];
    const HAS_REPR: bool = true;
    const IS_REFERENCED_WEAKLY: bool = true;

    fn end(self, py: Python<'_>) {
        self.forget_block(py);
    }

    fn repr<'py>(&self, me: &Object<'py>) -> PyResult<Object<'py>> {
        let owner = self.owner.get();
        let state = if owner.is_some() { "locked" } else { "unlocked" };
        let (owner, count) = (owner.map_or(0, Owner::get), self.count.get());
        let at = me.address();
        let text = format!("<{state} jimu.RLock object owner={owner} count={count} at {at:#x}>");
        me.py().text(&text)
    }
}

impl RLock {
    fn is_mine(&self, py: Python<'_>) -> bool {
        self.owner.get() == Some(self.greenlets.current(py))
    }

    fn own(&self, owner: Owner, count: u64) {
        self.owner.set(Some(owner));
        self.count.set(count);
    }

    /// Acquires a lock that is free and for which none has had to wait. No Python code runs in it, so no other
    /// greenlet or thread comes between.
    fn acquire_at_once(&self, owner: Owner, count: u64) -> bool {
        let is_free = self.owner.get().is_none() && self.block.borrow().is_none();
        if is_free {
            self.own(owner, count);
        }
        is_free
    }

    /// Returns the loop's lock. If there was none, creates it: held if this lock is.
    fn block<'py>(&self, py: Python<'py>) -> PyResult<Object<'py>> {
        loop {
            if let Some(block) = &*self.block.borrow() {
                return Ok(block.get(py).clone());
            }
            let block = self.greenlets.allocate_lock.get(py).call([])?;
            let is_owned = self.owner.get().is_some();
            if is_owned {
                block.call_method("acquire", [&py.truth(false)?])?;
            }
            // These calls run Python code, in which other threads may have acquired, released or created it.
            if self.owner.get().is_some() == is_owned && self.block.borrow().is_none() {
                self.block.replace(Some(block.store()));
            }
        }
    }

    /// Gives it up for the next owner.
    fn disown(&self, py: Python<'_>) -> PyResult<()> {
        self.count.set(0);
        self.owner.set(None);
        let block = self.block.borrow().as_ref().map(|block| block.get(py).clone());
        block.map_or(Ok(()), |block| block.call_method("release", []).map(drop))
    }

    fn forget_block(&self, py: Python<'_>) {
        let block = self.block.take();
        drop(block.map(|block| block.take(py)));
    }
}

/// `RLock()`: creates a lock.
fn new<'py>(
    py: Python<'py>,
    factory: &Factory,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [] = arguments.take([])?;
    let lock = RLock {
        greenlets: Rc::clone(&factory.greenlets),
        owner: Cell::new(None),
        count: Cell::new(0),
        block: RefCell::new(None),
    };
    factory.locks.make(py, lock)
}

/// `acquire(blocking=True, timeout=-1)` and `__enter__()`: returns whether the greenlet owns the lock now.
fn acquire<'py>(
    py: Python<'py>,
    lock: &RLock,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let me = lock.greenlets.current(py);
    let [blocking, timeout] = arguments.take(["blocking", "timeout"])?;
    if lock.owner.get() == Some(me) {
        lock.count.set(lock.count.get() + 1);
        return py.truth(true);
    }
    // The loop's lock checks arguments.
    if blocking.is_none() && timeout.is_none() && lock.acquire_at_once(me, 1) {
        return py.truth(true);
    }
    let blocking = blocking.map_or_else(|| py.truth(true), Ok)?;
    let timeout = timeout.map_or_else(|| py.number(-1), Ok)?;
    let acquired = lock.block(py)?.call_method("acquire", [&blocking, &timeout])?;
    if acquired.is_true() {
        lock.own(me, 1);
    }
    Ok(acquired)
}

/// `release()` and `__exit__(…)`: releases it once; `RuntimeError` if the greenlet does not own it.
fn release<'py>(py: Python<'py>, lock: &RLock, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    if !lock.is_mine(py) {
        return Err(not_acquired(py));
    }
    match lock.count.get() - 1 {
        0 => lock.disown(py)?,
        count => lock.count.set(count),
    }
    Ok(py.none())
}

fn not_acquired(py: Python<'_>) -> PyErrSet {
    PyErrSet::new(py, Exception::Runtime, "cannot release un-acquired lock")
}

/// `locked()`: returns whether any greenlet owns the lock.
fn locked<'py>(py: Python<'py>, lock: &RLock, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    py.truth(lock.owner.get().is_some())
}

/// `_is_owned()`: returns whether the greenlet owns the lock.
fn is_owned<'py>(py: Python<'py>, lock: &RLock, _: &Arguments<'_, 'py>) -> PyResult<Object<'py>> {
    py.truth(lock.is_mine(py))
}

/// `_recursion_count()`: returns how often the greenlet has acquired the lock.
fn recursion_count<'py>(
    py: Python<'py>,
    lock: &RLock,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let count = if lock.is_mine(py) { lock.count.get() } else { 0 };
    py.number(count as i64)
}

/// `_release_save()`: releases the lock as often as it was acquired, and returns what [`acquire_restore`] takes.
fn release_save<'py>(
    py: Python<'py>,
    lock: &RLock,
    _: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let Some(owner) = lock.owner.get() else { return Err(not_acquired(py)) };
    let state = [py.number(lock.count.get() as i64)?, py.number(owner.get() as i64)?];
    lock.disown(py)?;
    py.tuple(state)
}

/// `_acquire_restore(state)`: waits for the lock, and acquires it as often as before.
fn acquire_restore<'py>(
    py: Python<'py>,
    lock: &RLock,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [state] = arguments.take(["state"])?;
    let state = required(py, state, "state")?;
    let (count, owner) = (state.tuple_item(0)?.as_number()?, state.tuple_item(1)?.as_number()?);
    let (count, Some(owner)) = (count as u64, NonZero::new(owner as usize)) else {
        return Err(PyErrSet::new(py, Exception::Value, "the state has no owner"));
    };
    if !lock.acquire_at_once(owner, count) {
        lock.block(py)?.call_method("acquire", [])?;
        lock.own(owner, count);
    }
    Ok(py.none())
}

/// `_at_fork_reinit()`: makes it a free lock.
fn at_fork_reinit<'py>(
    py: Python<'py>,
    lock: &RLock,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<Object<'py>> {
    let [] = arguments.take([])?;
    lock.owner.set(None);
    lock.count.set(0);
    lock.forget_block(py);
    Ok(py.none())
}
