//! Each `.so` has its own `std` and its own `tracing`: here both are tied to the host's log.
//!
//! [`install`] is called once for each library, before any of its code runs, by the functions that the export macros
//! make. A level that is off costs what a disabled callsite of `tracing` costs.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::panic;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_core::span::{Attributes, Current, Id, Record};
use tracing_core::{Dispatch, Event, Level, LevelFilter, Metadata, Subscriber, dispatcher, field};

use crate::guard::payload_words;
use crate::host::{Host, LogLevel};
use crate::stack;

/// Sends this library's `tracing` events and panics to the host's log. The second call in a library does nothing.
pub fn install(host: &Host) {
    let forward =
        Forward { host: host.clone(), level: filter(host.log_level()), spans: Spans::default() };
    if dispatcher::set_global_default(Dispatch::new(forward)).is_ok() {
        report_panics(host.clone());
    }
}

fn report_panics(host: Host) {
    panic::set_hook(Box::new(move |info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let words = payload_words(info.payload());
        host.log(LogLevel::ERROR, "panic", &format!("panic at {place}: {words}"));
        let heading = format!("stack of the panic at {place}");
        host.log_stack(LogLevel::ERROR, "panic", &heading, &stack::addresses());
    }));
}

/// The subscriber: formats an event with the spans around it and hands one line to the host.
struct Forward {
    host: Host,
    level: LevelFilter,
    spans: Spans,
}

impl Subscriber for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut line = Line::default();
        attributes.record(&mut line);
        self.spans.open(attributes.metadata().name(), &line)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut line = Line::default();
        values.record(&mut line);
        self.spans.add(span, &line);
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let metadata = event.metadata();
        let text = self.spans.around(&line);
        self.host.log(level(*metadata.level()), metadata.target(), &text);
    }

    fn enter(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(span.into_u64()));
    }

    fn exit(&self, span: &Id) {
        // Greenlets of one thread leave their spans in any order.
        ENTERED.with_borrow_mut(|entered| {
            if let Some(at) = entered.iter().rposition(|id| *id == span.into_u64()) {
                entered.remove(at);
            }
        });
    }

    fn try_close(&self, span: Id) -> bool {
        self.spans.close(&span)
    }

    fn clone_span(&self, span: &Id) -> Id {
        self.spans.share(span);
        span.clone()
    }

    fn current_span(&self) -> Current {
        // Spans of one thread nest in any order under greenlets: there is no one current span to name.
        Current::none()
    }
}

/// The spans that are open in this library.
#[derive(Default)]
struct Spans {
    next: AtomicU64,
    open: Mutex<Vec<Span>>,
}

struct Span {
    id: u64,
    users: usize,
    text: String,
}

impl Spans {
    fn open(&self, name: &str, fields: &Line) -> Id {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let text = if fields.is_empty() { name.to_owned() } else { format!("{name}{{{fields}}}") };
        self.with(|open| open.push(Span { id, users: 1, text }));
        Id::from_u64(id)
    }

    fn add(&self, id: &Id, fields: &Line) {
        self.with(|open| {
            if let Some(span) = find(open, id) {
                // Writing to a string does not fail.
                let _ = write!(span.text, " {fields}");
            }
        });
    }

    fn share(&self, id: &Id) {
        self.with(|open| {
            if let Some(span) = find(open, id) {
                span.users += 1;
            }
        });
    }

    /// Whether that was the last user of the span.
    fn close(&self, id: &Id) -> bool {
        self.with(|open| {
            let Some(at) = open.iter().position(|span| span.id == id.into_u64()) else {
                return false;
            };
            open[at].users -= 1;
            let last = open[at].users == 0;
            if last {
                open.swap_remove(at);
            }
            last
        })
    }

    /// The line with the names of the spans that this thread is in before it.
    fn around(&self, line: &Line) -> String {
        let entered = ENTERED.with_borrow(Clone::clone);
        if entered.is_empty() {
            return line.to_string();
        }
        self.with(|open| {
            let mut text = String::new();
            for id in &entered {
                if let Some(span) = open.iter().find(|span| span.id == *id) {
                    text.push_str(&span.text);
                    text.push_str(": ");
                }
            }
            text.push_str(&line.to_string());
            text
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<Span>) -> T) -> T {
        work(&mut self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn find<'a>(open: &'a mut [Span], id: &Id) -> Option<&'a mut Span> {
    open.iter_mut().find(|span| span.id == id.into_u64())
}

/// The fields of an event or a span: the message first, then `name=value`.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.message.is_empty() && self.fields.is_empty()
    }
}

impl field::Visit for Line {
    fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let both = format!("{}{}", self.message, self.fields);
        f.write_str(both.trim_start())
    }
}

thread_local! {
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

fn level(level: Level) -> LogLevel {
    match level {
        Level::ERROR => LogLevel::ERROR,
        Level::WARN => LogLevel::WARNING,
        Level::INFO => LogLevel::INFO,
        Level::DEBUG => LogLevel::DEBUG,
        Level::TRACE => LogLevel::TRACE,
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::CRITICAL | LogLevel::ERROR => LevelFilter::ERROR,
        LogLevel::WARNING => LevelFilter::WARN,
        LogLevel::INFO => LevelFilter::INFO,
        LogLevel::DEBUG => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}
