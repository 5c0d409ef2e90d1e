//! Rust functions and types that Python can call and hold. A panic in one of them becomes a `RuntimeError`.

use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::mem::offset_of;
use std::ptr;
use std::slice;

use pyo3_ffi::{
    Py_READONLY, Py_T_PYSSIZET, Py_am_await, Py_ssize_t, Py_tp_dealloc, Py_tp_getattro, Py_tp_iter,
    Py_tp_iternext, Py_tp_members, Py_tp_methods, Py_tp_repr, PyCFunction, PyMemberDef,
    PyMethodDef, PyMethodDefPointer, PyObject, PyType_Slot, PyType_Spec,
};
use worker_api::guard;

use super::api::{self, LAST_SLOT, METH_FASTCALL, METH_KEYWORDS, TPFLAGS_DEFAULT};
use super::attach::Python;
use super::error::{PyErrSet, PyResult};
use super::exception::Exception;
use super::object::{GlobalRef, Object};

/// Signature with which CPython calls: `METH_FASTCALL | METH_KEYWORDS`.
type RawFunction = unsafe extern "C" fn(
    *mut PyObject,
    *const *mut PyObject,
    Py_ssize_t,
    *mut PyObject,
) -> *mut PyObject;

/// A function on the values of a native type, as Python calls it.
type Body<T> = for<'py> fn(Python<'py>, &T, &Arguments<'_, 'py>) -> PyResult<Object<'py>>;

/// A method of the native type that holds a `T`: its name in Python and its entry, created by
/// [`method!`](crate::method).
pub struct Method<T> {
    /// Name in Python.
    pub name: &'static CStr,
    /// Entry point for CPython.
    pub entry: Entry<T>,
}

/// Entry point for CPython. Created only by [`method!`](crate::method), around [`enter`].
pub struct Entry<T>(RawFunction, PhantomData<fn(&T)>);

impl<T> Entry<T> {
    /// Wraps an entry point.
    ///
    /// # Safety
    /// The function does nothing except call [`enter`] with its arguments and this body.
    pub const unsafe fn new(raw: RawFunction, _body: Body<T>) -> Self {
        Self(raw, PhantomData)
    }
}

/// Creates an [`Entry`] for a function `fn(Python<'py>, &T, &Arguments<'_, 'py>) -> PyResult<Object<'py>>`, whose
/// second argument is the value of the object that it is bound to. This is how it gets the state of the process.
#[macro_export]
macro_rules! method {
    ($body:path) => {{
        unsafe extern "C" fn raw(
            me: *mut $crate::ffi::PyObject,
            arguments: *const *mut $crate::ffi::PyObject,
            count: $crate::ffi::Py_ssize_t,
            names: *mut $crate::ffi::PyObject,
        ) -> *mut $crate::ffi::PyObject {
            // SAFETY: passed on as CPython provided it.
            unsafe { $crate::enter(me, arguments, count, names, $body) }
        }
        // SAFETY: it does nothing except call `enter` with this body.
        unsafe { $crate::Entry::new(raw, $body) }
    }};
}

/// Handles a call from CPython.
///
/// # Safety
/// The arguments are those of a call by `METH_FASTCALL | METH_KEYWORDS`, bound to an object of the native type that
/// holds a `T`.
pub unsafe fn enter<T>(
    me: *mut PyObject,
    arguments: *const *mut PyObject,
    count: Py_ssize_t,
    names: *mut PyObject,
    body: Body<T>,
) -> *mut PyObject {
    // SAFETY: CPython calls with the lock held and keeps the arguments alive for the call. `names` is null or
    // a tuple of that many names after the positional arguments. The object has the type of the method: CPython
    // checks it for a method of the type, and `NativeType::bind` for a bound one.
    unsafe {
        let py = Python::assume();
        call_guarded(py, || {
            let me = Object::shared(py, me);
            let keywords = if names.is_null() { None } else { Some(Object::shared(py, names)) };
            let all = count as usize
                + match &keywords {
                    Some(names) => names.length()?,
                    None => 0,
                };
            let pointers = if all == 0 { &[] } else { slice::from_raw_parts(arguments, all) };
            let arguments = Arguments {
                py,
                me: me.as_ptr(),
                pointers,
                by_position: count as usize,
                names: keywords,
            };
            body(py, value_of(py, me.as_ptr())?, &arguments)
        })
    }
}

/// Runs `body` and converts its result, or a panic, to what CPython expects.
fn call_guarded<'py>(
    py: Python<'py>,
    body: impl FnOnce() -> PyResult<Object<'py>>,
) -> *mut PyObject {
    match guard::catch("a native function", body) {
        Ok(Ok(object)) => object.into_ptr(),
        Ok(Err(raised)) => null_with_error(raised),
        Err(failure) => null_with_error(PyErrSet::new(py, Exception::Runtime, &failure.message)),
    }
}

/// Returns null: the error stays set for the caller.
fn null_with_error(_: PyErrSet) -> *mut PyObject {
    ptr::null_mut()
}

/// Arguments of a call from Python.
pub struct Arguments<'a, 'py> {
    py: Python<'py>,
    me: *mut PyObject,
    pointers: &'a [*mut PyObject],
    by_position: usize,
    names: Option<Object<'py>>,
}

impl<'py> Arguments<'_, 'py> {
    /// Returns the object that the method is bound to.
    #[inline]
    pub fn bound_to(&self) -> Object<'py> {
        self.shared(self.me)
    }

    /// Returns the arguments with these names, in order; `TypeError` if there are others or too many.
    pub fn take<const N: usize>(&self, expected: [&str; N]) -> PyResult<[Option<Object<'py>>; N]> {
        if self.by_position > N {
            let message = format!("expected at most {N} arguments, got {}", self.by_position);
            return Err(PyErrSet::new(self.py, Exception::Type, &message));
        }
        let mut taken = [const { None }; N];
        for (place, pointer) in taken.iter_mut().zip(&self.pointers[..self.by_position]) {
            *place = Some(self.shared(*pointer));
        }
        if let Some(names) = &self.names {
            for (at, pointer) in self.pointers[self.by_position..].iter().enumerate() {
                let name = names.tuple_item(at)?;
                let name = name.as_str()?;
                let Some(place) = expected.iter().position(|e| *e == name) else {
                    let message = format!("unexpected keyword argument '{name}'");
                    return Err(PyErrSet::new(self.py, Exception::Type, &message));
                };
                taken[place] = Some(self.shared(*pointer));
            }
        }
        Ok(taken)
    }

    fn shared(&self, pointer: *mut PyObject) -> Object<'py> {
        // SAFETY: CPython keeps the arguments alive for the call, which this value does not outlive.
        unsafe { Object::shared(self.py, pointer) }
    }
}

/// Returns `argument`, or `TypeError` with its name if it is missing.
pub fn required<'py>(
    py: Python<'py>,
    argument: Option<Object<'py>>,
    name: &str,
) -> PyResult<Object<'py>> {
    argument
        .ok_or_else(|| PyErrSet::new(py, Exception::Type, &format!("missing argument '{name}'")))
}

/// A [`Method`] in the form to which CPython keeps a pointer: created once, never freed.
pub struct Definition<T>(&'static PyMethodDef, PhantomData<fn(&T)>);

// SAFETY: CPython only reads it.
unsafe impl<T> Send for Definition<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Definition<T> {}

impl<T> Definition<T> {
    /// Creates the definition. For methods that are bound to many objects: once, not once per object.
    pub fn new(method: &Method<T>) -> Self {
        Self(Box::leak(Box::new(definition(method))), PhantomData)
    }
}

fn definition<T>(method: &Method<T>) -> PyMethodDef {
    PyMethodDef {
        ml_name: method.name.as_ptr(),
        // CPython interprets the pointer according to the flags, not according to the field of the union.
        ml_meth: PyMethodDefPointer {
            // SAFETY: both are function pointers; see above for the calling convention.
            PyCFunction: unsafe { std::mem::transmute::<RawFunction, PyCFunction>(method.entry.0) },
        },
        ml_flags: METH_FASTCALL | METH_KEYWORDS,
        ml_doc: ptr::null(),
    }
}

/// A native type: its name, its methods and its behavior.
pub trait Native: Sized + 'static {
    /// Full name, such as `jimu.Input`.
    const NAME: &'static CStr;
    /// Methods, in groups by the module that defines them.
    const METHODS: &'static [&'static [Method<Self>]];
    /// Whether it is its own iterator.
    const ITERATES: bool = false;
    /// Whether it can be awaited: it is its own iterator then, and [`Native::ITERATES`] is true.
    const AWAITS: bool = false;
    /// Whether [`Native::attribute`] provides its attributes.
    const HAS_ATTRIBUTES: bool = false;
    /// Whether [`Native::repr`] describes it.
    const HAS_REPR: bool = false;
    /// Whether Python code can create weak references to it.
    const IS_REFERENCED_WEAKLY: bool = false;

    /// Called when the object is deallocated.
    fn end(self, py: Python<'_>) {
        let _ = py;
    }

    /// Returns the next item; `None` at the end. What is awaited returns what its task waits for; at the end it can raise
    /// [`PyErrSet::stop`] with its result.
    fn next<'py>(&self, me: &Object<'py>) -> PyResult<Option<Object<'py>>> {
        let _ = me;
        Ok(None)
    }

    /// Returns an attribute.
    fn attribute<'py>(&self, me: &Object<'py>, name: &Object<'py>) -> PyResult<Object<'py>> {
        let _ = name;
        Ok(me.clone())
    }

    /// Returns what `repr()` does.
    fn repr<'py>(&self, me: &Object<'py>) -> PyResult<Object<'py>> {
        me.py().text(&me.type_name())
    }
}

/// A Python type whose objects hold a `T`. Python code cannot derive from it. Objects that it creates by calling the
/// type hold nothing, and are refused.
pub struct NativeType<T> {
    kind: GlobalRef,
    holds: PhantomData<fn() -> T>,
}

/// Memory layout of an object: CPython's head, a pointer to the value, and CPython's list of the weak references. The
/// pointer is null in an object that Python created.
#[repr(C)]
struct Layout<T> {
    head: PyObject,
    value: *mut T,
    weak_references: *mut PyObject,
}

impl<T: Native> NativeType<T> {
    /// Creates the type.
    pub fn new(py: Python<'_>) -> PyResult<Self> {
        let methods = T::METHODS.iter().copied().flatten();
        let mut methods: Vec<PyMethodDef> = methods.map(definition).collect();
        methods.push(PyMethodDef::zeroed());
        let methods = methods.leak();
        let slot = |slot: c_int, pfunc: *mut c_void| PyType_Slot { slot, pfunc };
        let mut members = [weak_references::<T>(), PyMemberDef::default()];
        let mut slots = vec![
            slot(Py_tp_dealloc, deallocate::<T> as *mut c_void),
            slot(Py_tp_methods, methods.as_mut_ptr().cast()),
        ];
        if T::ITERATES {
            slots.push(slot(Py_tp_iter, itself as *mut c_void));
            slots.push(slot(Py_tp_iternext, next::<T> as *mut c_void));
        }
        if T::AWAITS {
            slots.push(slot(Py_am_await, itself as *mut c_void));
        }
        if T::HAS_ATTRIBUTES {
            slots.push(slot(Py_tp_getattro, attribute::<T> as *mut c_void));
        }
        if T::HAS_REPR {
            slots.push(slot(Py_tp_repr, repr::<T> as *mut c_void));
        }
        if T::IS_REFERENCED_WEAKLY {
            slots.push(slot(Py_tp_members, members.as_mut_ptr().cast()));
        }
        slots.push(LAST_SLOT);
        let mut spec = PyType_Spec {
            name: T::NAME.as_ptr(),
            basicsize: size_of::<Layout<T>>() as c_int,
            itemsize: 0,
            flags: TPFLAGS_DEFAULT,
            slots: slots.as_mut_ptr(),
        };
        // SAFETY: CPython copies the spec, its slots and its members; names and methods are never freed.
        let kind = unsafe { Object::owned(py, (py.api().PyType_FromSpec)(&raw mut spec))? };
        Ok(Self { kind: kind.store(), holds: PhantomData })
    }

    /// Creates an object with this value.
    pub fn make<'py>(&self, py: Python<'py>, value: T) -> PyResult<Object<'py>> {
        // SAFETY: the type is native, so the memory has the layout; it is zeroed, and the value is written
        // here.
        unsafe {
            let made = (py.api().PyType_GenericAlloc)(self.kind.get(py).as_ptr().cast(), 0);
            let object = Object::owned(py, made)?;
            (*made.cast::<Layout<T>>()).value = Box::into_raw(Box::new(value));
            Ok(object)
        }
    }

    /// Returns a method bound to an object of this type; `TypeError` for another type.
    pub fn bind<'py>(&self, method: &Definition<T>, me: &Object<'py>) -> PyResult<Object<'py>> {
        let py = me.py();
        self.value(me)?;
        // SAFETY: the definition is never freed and never written to; CPython takes a reference to `me`, which has
        // the type of the method.
        unsafe {
            let definition = ptr::from_ref(method.0).cast_mut();
            let made = (py.api().PyCFunction_NewEx)(definition, me.as_ptr(), ptr::null_mut());
            Object::owned(py, made)
        }
    }

    /// Returns the value of an object of this type; `TypeError` for another type.
    #[inline]
    pub fn value<'a>(&self, object: &'a Object<'_>) -> PyResult<&'a T> {
        let py = object.py();
        if !object.is_exactly(&self.kind.get(py)) {
            return Err(PyErrSet::new(py, Exception::Type, "the object has the wrong type"));
        }
        // SAFETY: of this type, therefore of this layout.
        unsafe { value_of(py, object.as_ptr()) }
    }
}

/// Tells CPython where an object has the list of its weak references.
fn weak_references<T>() -> PyMemberDef {
    PyMemberDef {
        name: c"__weaklistoffset__".as_ptr(),
        type_code: Py_T_PYSSIZET,
        offset: offset_of!(Layout<T>, weak_references) as Py_ssize_t,
        flags: Py_READONLY,
        doc: ptr::null(),
    }
}

/// # Safety
/// `object` is alive and has the layout of `T`.
unsafe fn value_of<'a, T>(py: Python<'_>, object: *mut PyObject) -> PyResult<&'a T> {
    // SAFETY: by this function's contract; the value lives as long as the object.
    let value = unsafe { (*object.cast::<Layout<T>>()).value.as_ref() };
    value.ok_or_else(|| {
        PyErrSet::new(py, Exception::Runtime, "the object was not created by the server")
    })
}

unsafe extern "C" fn deallocate<T: Native>(object: *mut PyObject) {
    // SAFETY: called by CPython with the lock held, once, for an unreferenced object of a native type. Objects
    // of a heap type own a reference to it.
    unsafe {
        let Layout { value, weak_references, .. } = *object.cast::<Layout<T>>();
        let kind = (*object).ob_type;
        if !weak_references.is_null() {
            (api::api().PyObject_ClearWeakRefs)(object);
        }
        if !value.is_null() {
            // A panic while the value is dropped must not reach CPython; it can only be logged.
            let _ = guard::catch("the deallocation of a native object", || {
                Box::from_raw(value).end(Python::assume());
            });
        }
        (api::api().PyObject_Free)(object.cast());
        (api::api().Py_DecRef)(kind.cast());
    }
}

unsafe extern "C" fn itself(object: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by CPython with the lock held, for a live object.
    unsafe { (api::api().Py_IncRef)(object) };
    object
}

unsafe extern "C" fn next<T: Native>(object: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by CPython with the lock held, for a live object of a native type.
    unsafe {
        let py = Python::assume();
        let me = Object::shared(py, object);
        let step = guard::catch("a native iterator", || {
            value_of::<T>(py, object).and_then(|value| value.next(&me))
        });
        match step {
            Ok(Ok(Some(item))) => item.into_ptr(),
            Ok(Ok(None)) => ptr::null_mut(),
            Ok(Err(raised)) => null_with_error(raised),
            Err(failure) => {
                null_with_error(PyErrSet::new(py, Exception::Runtime, &failure.message))
            }
        }
    }
}

unsafe extern "C" fn attribute<T: Native>(
    object: *mut PyObject,
    name: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: called by CPython with the lock held, for an object of a native type and a name, both alive.
    unsafe {
        let py = Python::assume();
        let me = Object::shared(py, object);
        let name = Object::shared(py, name);
        call_guarded(py, || value_of::<T>(py, object)?.attribute(&me, &name))
    }
}

unsafe extern "C" fn repr<T: Native>(object: *mut PyObject) -> *mut PyObject {
    // SAFETY: called by CPython with the lock held, for a live object of a native type.
    unsafe {
        let py = Python::assume();
        let me = Object::shared(py, object);
        call_guarded(py, || value_of::<T>(py, object)?.repr(&me))
    }
}

/// A value that is accessed only with the interpreter's lock. Borrowing it twice, for example from a second thread
/// while the first waits detached in the middle of an operation, is an error of the application and not a crash.
pub struct Cell<T>(std::cell::RefCell<T>);

// SAFETY: the `RefCell` is only reached with a token, which proves that this thread holds the interpreter's lock.
// Its flag is therefore changed by one thread at a time. A borrow held over a detached section stays flagged.
unsafe impl<T: Send> Sync for Cell<T> {}

impl<T> Cell<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(std::cell::RefCell::new(value))
    }

    /// Borrows it; `None` while it is borrowed.
    #[inline]
    pub fn borrow<'a>(&'a self, _py: Python<'_>) -> Option<std::cell::RefMut<'a, T>> {
        self.0.try_borrow_mut().ok()
    }
}
