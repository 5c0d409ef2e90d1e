//! The types of `jimu.h`, field by field. The header documents them; [`LAYOUTS`] is what a test compares with it.

use std::ffi::{c_char, c_void};
use std::mem::offset_of;

/// Size and fields of one type, as Rust sees it.
#[derive(Debug)]
pub struct Layout {
    /// The name in `jimu.h`.
    pub name: &'static str,
    /// In bytes.
    pub size: usize,
    /// Name, offset and size of each field, in order.
    pub fields: &'static [(&'static str, usize, usize)],
}

const fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! types {
    ($( $rust:ident = $c:ident { $( $field:ident: $type:ty, )* } )*) => {
        $(
            #[doc = concat!("`", stringify!($c), "` of `jimu.h`.")]
            #[repr(C)]
            #[derive(Clone, Copy, Debug)]
            #[allow(missing_docs)]
            pub struct $rust { $( pub $field: $type, )* }
        )*

        /// All types of the header.
        pub const LAYOUTS: &[Layout] = &[$(
            Layout {
                name: stringify!($c),
                size: size_of::<$rust>(),
                fields: &[$( (
                    stringify!($field),
                    offset_of!($rust, $field),
                    size_of_field::<$rust, $type>(|of| &of.$field),
                ), )*],
            },
        )*];
    };
}

type Object = *mut c_void;
/// A function of a table; `None` is NULL.
type Function<F> = Option<F>;

types! {
    Str = jimu_str { data: *const c_char, length: usize, }
    Bytes = jimu_bytes { data: *const u8, length: usize, }
    Table = jimu_table { size: u32, major: u16, minor: u16, }
    RawFailure = jimu_failure { kind: u8, status: u16, length: u32, text: [u8; FAILURE_TEXT], }
    WakerTable = jimu_waker_table {
        table: Table,
        wake: Function<unsafe extern "C" fn(Object)>,
        drop: Function<unsafe extern "C" fn(Object)>,
    }
    WakerObject = jimu_waker { functions: *const WakerTable, this: Object, }
    TaskTable = jimu_task_table {
        table: Table,
        run: Function<unsafe extern "C" fn(Object)>,
        drop: Function<unsafe extern "C" fn(Object)>,
    }
    TaskObject = jimu_task { functions: *const TaskTable, this: Object, }
    Sink = jimu_sink { write: Function<unsafe extern "C" fn(Object, Str)>, to: Object, }
    HeaderLine = jimu_header { name: Str, value: Bytes, }
    End = jimu_address { host: Str, port: u16, }
    Tls = jimu_tls { protocol: Str, cipher: Str, server_name: Str, client_certificate: Bytes, }
    Head = jimu_head {
        size: u32,
        version: u8,
        trusted_peer: bool,
        chunked: bool,
        method: Str,
        target: Bytes,
        path: Bytes,
        query: Bytes,
        authority: Str,
        scheme: Str,
        content_length: i64,
        headers: *const HeaderLine,
        header_count: usize,
        peer: End,
        local: End,
        tls: *const Tls,
        received_ns: u64,
        id: u64,
    }
    HijackedStream = jimu_hijacked { fd: i32, already_read: Bytes, }
    ExchangeTable = jimu_exchange_table {
        table: Table,
        head: Function<unsafe extern "C" fn(Object) -> *const Head>,
        read: Function<unsafe extern "C" fn(Object, *mut u8, usize, WakerObject, *mut usize, *mut RawFailure) -> i32>,
        start: Function<unsafe extern "C" fn(Object, u16, Str, *const HeaderLine, usize, *mut RawFailure) -> i32>,
        write: Function<unsafe extern "C" fn(Object, *const u8, usize, WakerObject, *mut usize, *mut RawFailure) -> i32>,
        send_file: Function<unsafe extern "C" fn(Object, i32, u64, u64, WakerObject, *mut usize, *mut RawFailure) -> i32>,
        informational: Function<unsafe extern "C" fn(Object, u16, *const HeaderLine, usize, *mut RawFailure) -> i32>,
        trailers: Function<unsafe extern "C" fn(Object, *const HeaderLine, usize, *mut RawFailure) -> i32>,
        finish: Function<unsafe extern "C" fn(Object, *mut RawFailure) -> i32>,
        fail: Function<unsafe extern "C" fn(Object, *const RawFailure)>,
        hijack: Function<unsafe extern "C" fn(Object, *mut HijackedStream, *mut RawFailure) -> i32>,
        descriptor: Function<unsafe extern "C" fn(Object) -> i32>,
        deadline_ns: Function<unsafe extern "C" fn(Object) -> u64>,
        extend_deadline: Function<unsafe extern "C" fn(Object, u64)>,
        on_disconnect: Function<unsafe extern "C" fn(Object, WakerObject)>,
        wait: Function<unsafe extern "C" fn(Object, u8, *mut RawFailure) -> i32>,
        is_proxied: Function<unsafe extern "C" fn(Object) -> bool>,
        detach: Function<unsafe extern "C" fn(Object) -> ExchangeObject>,
        drop: Function<unsafe extern "C" fn(Object)>,
    }
    ByteSink = jimu_byte_sink { write: Function<unsafe extern "C" fn(Object, Bytes)>, to: Object, }
    TlsSessionTable = jimu_tls_session_table {
        table: Table,
        read: Function<unsafe extern "C" fn(Object, i32, *mut u8, usize, *mut usize, *mut i32, *mut RawFailure) -> i32>,
        write: Function<unsafe extern "C" fn(Object, i32, *const Bytes, usize, *mut usize, *mut i32, *mut RawFailure) -> i32>,
        flush_some: Function<unsafe extern "C" fn(Object, i32, *mut usize, *mut i32, *mut RawFailure) -> i32>,
        send_close_notify: Function<unsafe extern "C" fn(Object, i32, *mut i32, *mut RawFailure) -> i32>,
        seal: Function<unsafe extern "C" fn(Object, Bytes, *const ByteSink) -> bool>,
        wants_write: Function<unsafe extern "C" fn(Object) -> bool>,
        properties: Function<unsafe extern "C" fn(Object) -> Tls>,
        drop: Function<unsafe extern "C" fn(Object)>,
    }
    TlsSessionObject = jimu_tls_session { functions: *const TlsSessionTable, this: Object, }
    TlsConfigTable = jimu_tls_config_table {
        table: Table,
        session: Function<unsafe extern "C" fn(Object, Bytes, *mut TlsSessionObject, *mut i32, *mut RawFailure) -> i32>,
    }
    TlsConfigObject = jimu_tls_config { functions: *const TlsConfigTable, this: Object, }
    ExchangeObject = jimu_exchange { functions: *const ExchangeTable, this: Object, }
    Record = jimu_access_record {
        size: u32,
        status: u16,
        head: *const Head,
        request_line: Bytes,
        peer: End,
        body_bytes: u64,
        duration_ns: u64,
        response_headers: *const HeaderLine,
        response_header_count: usize,
    }
    SettingValue = jimu_value {
        kind: u8,
        boolean: bool,
        integer: i64,
        real: f64,
        text: Str,
        list: *const Str,
        list_length: usize,
    }
    ListeningSocket = jimu_listener { fd: i32, is_unix: bool, name: Str, }
    HostTable = jimu_host_table {
        table: Table,
        setting: Function<unsafe extern "C" fn(Object, Str) -> SettingValue>,
        section: Function<unsafe extern "C" fn(Object) -> Str>,
        setting_file: Function<unsafe extern "C" fn(Object, Str, *mut Bytes, *mut RawFailure) -> i32>,
        listeners: Function<unsafe extern "C" fn(Object, *mut usize) -> *const ListeningSocket>,
        remaining_backlog: Function<unsafe extern "C" fn(Object, i32) -> u64>,
        close_listeners: Function<unsafe extern "C" fn(Object)>,
        spawn_index: Function<unsafe extern "C" fn(Object) -> u64>,
        arbiter_pid: Function<unsafe extern "C" fn(Object) -> i32>,
        notify: Function<unsafe extern "C" fn(Object)>,
        alive: Function<unsafe extern "C" fn(Object) -> bool>,
        stop: Function<unsafe extern "C" fn(Object)>,
        retire: Function<unsafe extern "C" fn(Object, Str)>,
        wake_descriptor: Function<unsafe extern "C" fn(Object) -> i32>,
        deliver_signals: Function<unsafe extern "C" fn(Object)>,
        on_signal: Function<unsafe extern "C" fn(Object, i32)>,
        reclaim_signals: Function<unsafe extern "C" fn(Object)>,
        signal_descriptor: Function<unsafe extern "C" fn(Object) -> i32>,
        count: Function<unsafe extern "C" fn(Object, u8, i64)>,
        request_started: Function<unsafe extern "C" fn(Object, *const Head) -> u32>,
        request_ended: Function<unsafe extern "C" fn(Object, u32, *const Record)>,
        wants_response_headers: Function<unsafe extern "C" fn(Object) -> bool>,
        log_level: Function<unsafe extern "C" fn(Object) -> u8>,
        log: Function<unsafe extern "C" fn(Object, u8, Str, Str)>,
        write_log: Function<unsafe extern "C" fn(Object, Str, Bytes)>,
        set_logged_variable: Function<unsafe extern "C" fn(Object, u64, Str, Bytes)>,
        at_abort: Function<unsafe extern "C" fn(Object, TaskObject)>,
        logged_variables: Function<unsafe extern "C" fn(Object, *const Sink)>,
        log_stack: Function<unsafe extern "C" fn(Object, u8, Str, Str, *const usize, usize)>,
        tls: Function<unsafe extern "C" fn(Object, *const Str, usize, *mut TlsConfigObject, *mut RawFailure) -> i32>,
    }
    HostObject = jimu_host { functions: *const HostTable, this: Object, }
    RuntimeTable = jimu_runtime_table {
        table: Table,
        cooperative: Function<unsafe extern "C" fn(Object) -> bool>,
        wait_fd: Function<unsafe extern "C" fn(Object, i32, u8, u64, *mut bool, *mut RawFailure) -> i32>,
        sleep: Function<unsafe extern "C" fn(Object, u64, *mut RawFailure) -> i32>,
        spawn: Function<unsafe extern "C" fn(Object, TaskObject, *mut RawFailure) -> i32>,
        offload: Function<unsafe extern "C" fn(Object, TaskObject, *mut RawFailure) -> i32>,
        connect: Function<unsafe extern "C" fn(Object, Str, u64, *mut i32, *mut RawFailure) -> i32>,
        resolve: Function<unsafe extern "C" fn(Object, Str, u16, u64, *const Sink, *mut RawFailure) -> i32>,
    }
    RuntimeObject = jimu_runtime { functions: *const RuntimeTable, this: Object, }
    EngineTable = jimu_engine_table {
        table: Table,
        descriptor: Function<unsafe extern "C" fn(Object) -> i32>,
        turn: Function<unsafe extern "C" fn(Object, *mut RawFailure) -> i32>,
        stopped: Function<unsafe extern "C" fn(Object) -> bool>,
    }
    EngineObject = jimu_engine { functions: *const EngineTable, this: Object, }
    AppTable = jimu_app_table {
        table: Table,
        call: Function<unsafe extern "C" fn(Object, *mut ExchangeObject, *mut RawFailure) -> i32>,
        load: Function<unsafe extern "C" fn(Object, *mut RawFailure) -> i32>,
        init_worker: Function<unsafe extern "C" fn(Object, *const RuntimeObject, *mut RawFailure) -> i32>,
        run_loop: Function<unsafe extern "C" fn(Object, *const EngineObject, *mut RawFailure) -> i32>,
        shutdown: Function<unsafe extern "C" fn(Object)>,
        drain: Function<unsafe extern "C" fn(Object)>,
        before_fork: Function<unsafe extern "C" fn(Object)>,
        after_fork: Function<unsafe extern "C" fn(Object, bool)>,
        hook: Function<unsafe extern "C" fn(Object, Str, *const i64, usize, *mut RawFailure) -> i32>,
        trace: Function<unsafe extern "C" fn(Object, *const Sink)>,
        files: Function<unsafe extern "C" fn(Object, *const Sink)>,
        stack_size: Function<unsafe extern "C" fn(Object) -> u64>,
        run_signal_handlers: Function<unsafe extern "C" fn(Object)>,
        wait_in_mold: Function<unsafe extern "C" fn(Object, i32)>,
    }
    AppObject = jimu_app { functions: *const AppTable, this: Object, needs: u64, }
    WorkerTable = jimu_worker_table {
        table: Table,
        run: Function<unsafe extern "C" fn(Object, *mut RawFailure) -> i32>,
        init_process: Function<unsafe extern "C" fn(Object, *mut RawFailure) -> i32>,
        handle_exit: Function<unsafe extern "C" fn(Object)>,
        handle_quit: Function<unsafe extern "C" fn(Object)>,
        handle_winch: Function<unsafe extern "C" fn(Object)>,
        handle_usr1: Function<unsafe extern "C" fn(Object)>,
        trace: Function<unsafe extern "C" fn(Object, *const Sink)>,
    }
    HooksTable = jimu_hooks_table {
        table: Table,
        event: Function<unsafe extern "C" fn(Object, Str, *const i64, usize, *mut RawFailure) -> i32>,
        pre_request: Function<unsafe extern "C" fn(Object, *const Head)>,
        post_request: Function<unsafe extern "C" fn(Object, *const Record)>,
    }
    ModuleHead = jimu_module_head {
        table: Table,
        magic: u32,
        kind: u32,
        flags: u64,
        features: u64,
        name: *const c_char,
        version: *const c_char,
    }
    Context = jimu_app_context { size: u32, spec: Str, worker_class: Str, guest_loop: Str, }
    Application = jimu_application {
        head: ModuleHead,
        create: Function<unsafe extern "C" fn(*const HostObject, *const Context, *mut Object, *mut RawFailure) -> i32>,
        functions: *const AppTable,
    }
    WorkerClass = jimu_worker_class {
        head: ModuleHead,
        description: *const c_char,
        guest_loop: *const c_char,
        access_log_format: *const c_char,
        setup: Function<unsafe extern "C" fn(*const HostObject, *mut RawFailure) -> i32>,
        create: Function<unsafe extern "C" fn(*const HostObject, *const AppObject, *mut Object, *mut RawFailure) -> i32>,
        functions: *const WorkerTable,
    }
    HooksModule = jimu_hooks_module {
        head: ModuleHead,
        create: Function<unsafe extern "C" fn(*const HostObject, *mut Object, *mut RawFailure) -> i32>,
        functions: *const HooksTable,
    }
}

/// `JIMU_ABI_MAJOR`.
pub const MAJOR: u16 = 1;
/// `JIMU_ABI_MINOR`.
pub const MINOR: u16 = 0;
/// `JIMU_FAILURE_TEXT`.
pub const FAILURE_TEXT: usize = 4088;
/// `JIMU_OK`.
pub const OK: i32 = 0;
/// `JIMU_READY`.
pub const READY: i32 = 0;
/// `JIMU_FAILED`.
pub const FAILED: i32 = -1;
/// `JIMU_PENDING`.
pub const PENDING: i32 = 1;
/// `JIMU_TLS_REFUSED`.
pub const TLS_REFUSED: i32 = 0;
/// `JIMU_TLS_PLAIN_HTTP`.
pub const TLS_PLAIN_HTTP: i32 = -1;
/// `JIMU_LENGTH_UNKNOWN`.
pub const LENGTH_UNKNOWN: i64 = -1;
/// `JIMU_FOREVER`.
pub const FOREVER: u64 = u64::MAX;
/// `JIMU_MAGIC`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"jimu");
/// `JIMU_LOAD_IN_WORKER`.
pub const LOAD_IN_WORKER: u64 = 1;

impl Table {
    /// The beginning of a table of this version.
    pub(crate) const fn of<T>() -> Self {
        Self { size: size_of::<T>() as u32, major: MAJOR, minor: MINOR }
    }
}
