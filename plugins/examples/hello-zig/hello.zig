//! An application in Zig: some routes of the example in Rust, ../hello. Zig translates jimu.h, and needs nothing else:
//!
//!     zig translate-c -lc -I ../../../worker-api/include ../../../worker-api/include/jimu.h > jimu.zig
//!     zig build-lib -dynamic -OReleaseSafe -lc --dep jimu -Mroot=hello.zig -Mjimu=jimu.zig -femit-bin=libhello_zig_app.so
//!     host ./libhello_zig_app.so
//!
//!   path          response
//!   /             a greeting
//!   /echo         the request's body, as it arrives
//!   /sleep?ms=    a text, after a sleep of the worker class's runtime
//!   /headers      the request's headers
//!   /pid          the worker's process ID
//!   /fail         none: it returns an error, which the server survives

const std = @import("std");
const jimu = @import("jimu");

/// The kind and the text of a failure are written where the server expects them; this error reports that there is one.
const Failed = error{Failed};

const Hello = struct {
    runtime: ?*const jimu.jimu_runtime = null,

    fn call(self: *const Hello, exchange: *jimu.jimu_exchange, failure: *jimu.jimu_failure) Failed!void {
        const head: *const jimu.jimu_head = exchange.functions.*.head.?(exchange.self);
        const path = bytes(head.path);
        if (std.mem.eql(u8, path, "/")) {
            try respond(exchange, 200, "Hello, world!\n", failure);
        } else if (std.mem.eql(u8, path, "/echo")) {
            try echo(exchange, failure);
        } else if (std.mem.eql(u8, path, "/sleep")) {
            try self.sleep(exchange, head, failure);
        } else if (std.mem.eql(u8, path, "/headers")) {
            try headers(exchange, head, failure);
        } else if (std.mem.eql(u8, path, "/pid")) {
            var room: [32]u8 = undefined;
            const words = std.fmt.bufPrint(&room, "{d}\n", .{std.os.linux.getpid()}) catch unreachable;
            try respond(exchange, 200, words, failure);
        } else if (std.mem.eql(u8, path, "/fail")) {
            return fail(failure, jimu.JIMU_FAILURE_OTHER, "a client asked for a failure");
        } else {
            try respond(exchange, 404, "There is nothing here.\n", failure);
        }
    }

    /// Not a sleep of Zig, which would stop all requests of a cooperative worker.
    fn sleep(
        self: *const Hello,
        exchange: *jimu.jimu_exchange,
        head: *const jimu.jimu_head,
        failure: *jimu.jimu_failure,
    ) Failed!void {
        const asked = std.fmt.parseInt(u64, bytes(jimu.jimu_head_query(head, "ms")), 10) catch 1000;
        const ms: u64 = @min(asked, 600_000);
        const runtime = self.runtime.?;
        try check(runtime.functions.*.sleep.?(runtime.self, ms * 1_000_000, failure));
        var room: [64]u8 = undefined;
        const words = std.fmt.bufPrint(&room, "Slept for {d} ms.\n", .{ms}) catch unreachable;
        try respond(exchange, 200, words, failure);
    }
};

/// Sends the body back while it still arrives: an upload of any size takes one buffer.
fn echo(exchange: *jimu.jimu_exchange, failure: *jimu.jimu_failure) Failed!void {
    const header = jimu.jimu_header_of("Content-Type", "application/octet-stream");
    try check(jimu.jimu_start(exchange, 200, &header, 1, failure));
    var part: [16 * 1024]u8 = undefined;
    while (true) {
        var count: usize = 0;
        try check(jimu.jimu_read(exchange, &part, part.len, &count, failure));
        if (count == 0) return;
        try check(jimu.jimu_write(exchange, &part, count, failure));
    }
}

/// Writes one line after the other: no memory is allocated.
fn headers(exchange: *jimu.jimu_exchange, head: *const jimu.jimu_head, failure: *jimu.jimu_failure) Failed!void {
    const plain = jimu.jimu_header_of("Content-Type", "text/plain; charset=utf-8");
    try check(jimu.jimu_start(exchange, 200, &plain, 1, failure));
    for (head.headers[0..head.header_count]) |header| {
        for ([_][]const u8{ text(header.name), ": ", bytes(header.value), "\n" }) |part| {
            try check(jimu.jimu_write(exchange, part.ptr, part.len, failure));
        }
    }
}

fn respond(exchange: *jimu.jimu_exchange, status: u16, words: []const u8, failure: *jimu.jimu_failure) Failed!void {
    try check(jimu.jimu_respond(exchange, status, "text/plain; charset=utf-8", words.ptr, words.len, failure));
}

fn fail(failure: *jimu.jimu_failure, kind: u8, words: [:0]const u8) Failed {
    _ = jimu.jimu_fail(failure, kind, words.ptr);
    return error.Failed;
}

fn check(result: jimu.jimu_result) Failed!void {
    if (result != jimu.JIMU_OK) return error.Failed;
}

fn bytes(value: jimu.jimu_bytes) []const u8 {
    return if (value.data == null) "" else value.data[0..value.length];
}

fn text(value: jimu.jimu_str) []const u8 {
    return if (value.data == null) "" else value.data[0..value.length];
}

/// Used by each worker after its fork, possibly on several threads at a time: only `init_worker` changes it.
var hello: Hello = .{};

fn call(
    _: ?*anyopaque,
    exchange: [*c]jimu.jimu_exchange,
    failure: [*c]jimu.jimu_failure,
) callconv(.c) jimu.jimu_result {
    hello.call(exchange, failure) catch return jimu.JIMU_FAILED;
    return jimu.JIMU_OK;
}

fn initWorker(
    _: ?*anyopaque,
    runtime: [*c]const jimu.jimu_runtime,
    _: [*c]jimu.jimu_failure,
) callconv(.c) jimu.jimu_result {
    hello.runtime = runtime;
    return jimu.JIMU_OK;
}

fn create(
    _: [*c]const jimu.jimu_host,
    _: [*c]const jimu.jimu_app_context,
    self: [*c]?*anyopaque,
    _: [*c]jimu.jimu_failure,
) callconv(.c) jimu.jimu_result {
    self.* = null;
    return jimu.JIMU_OK;
}

fn table(comptime T: type) jimu.jimu_table {
    return .{ .size = @sizeOf(T), .major = jimu.JIMU_ABI_MAJOR, .minor = jimu.JIMU_ABI_MINOR };
}

const functions: jimu.jimu_app_table = .{
    .table = table(jimu.jimu_app_table),
    .call = call,
    .init_worker = initWorker,
};

export const jimu_module: jimu.jimu_application = .{
    .head = .{
        .table = table(jimu.jimu_application),
        .magic = jimu.JIMU_MAGIC,
        .kind = jimu.JIMU_KIND_APPLICATION,
        .name = "hello-zig",
        .version = "1.0",
    },
    .create = create,
    .functions = &functions,
};
