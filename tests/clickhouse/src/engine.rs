//! The C interface of libchdb: connections, statements, streamed inserts.
//! It refuses to share a connection: one statement at a time each, so every request opens its own (0.15 ms).

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;

use libloading::{Library, Symbol};

type Connection = *mut c_void;
type Outcome = *mut c_void;
type Stream = *mut c_void;

/// The loaded library with one data folder. Never unloaded: its threads outlive any hold on it.
pub struct Engine {
    library: &'static Library,
    data: String,
}

/// One connection; closed when dropped.
pub struct Link<'a> {
    engine: &'a Engine,
    handle: *mut Connection,
}

impl Engine {
    pub fn load(library: &str, data: &str) -> io::Result<Engine> {
        std::fs::create_dir_all(data)?;
        // SAFETY: the library's initialisers have no precondition; it is the pinned libchdb.
        let library = unsafe { Library::new(library) }.map_err(io::Error::other)?;
        let engine = Engine { library: Box::leak(Box::new(library)), data: data.into() };
        // Before the first connection, so that the process keeps its own signal handlers.
        // SAFETY: the type is that of the C declaration.
        let signals: Symbol<'_, unsafe extern "C" fn(c_int)> =
            unsafe { engine.symbol(b"chdb_set_signal_handlers_enabled\0")? };
        // SAFETY: takes a flag, no other precondition.
        unsafe { signals(0) };
        Ok(engine)
    }

    /// # Safety
    /// `T` must be the type of the C declaration.
    unsafe fn symbol<T>(&self, name: &[u8]) -> io::Result<Symbol<'static, T>> {
        // SAFETY: the caller gives the declaration's type; the library is never unloaded.
        unsafe { self.library.get(name) }.map_err(io::Error::other)
    }

    pub fn connect(&self) -> io::Result<Link<'_>> {
        let arguments = ["clickhouse".to_owned(), format!("--path={}", self.data)];
        let arguments: Vec<CString> = arguments.into_iter().map(CString::new).collect::<Result<_, _>>()?;
        let mut pointers: Vec<*mut c_char> =
            arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        // SAFETY: the type is that of the C declaration.
        let connect: Symbol<'_, unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut Connection> =
            unsafe { self.symbol(b"chdb_connect\0")? };
        // SAFETY: argc and argv describe `pointers`, whose strings live until after the call.
        let handle = unsafe { connect(2, pointers.as_mut_ptr()) };
        if handle.is_null() {
            return Err(io::Error::other("the engine gave no connection"));
        }
        Ok(Link { engine: self, handle })
    }

    /// Closes the engine and ends the process without running destructors, which its threads would not survive.
    pub fn exit(&self) -> ! {
        unsafe extern "C" {
            fn _exit(code: c_int) -> !;
        }
        // SAFETY: the type is that of the C declaration.
        let shutdown = unsafe { self.symbol::<unsafe extern "C" fn()>(b"chdb_shutdown\0") };
        if let Ok(shutdown) = shutdown {
            // SAFETY: no request is being answered any more.
            unsafe { shutdown() };
        }
        // SAFETY: ends the process; nothing of ours is left to do.
        unsafe { _exit(0) }
    }
}

impl Link<'_> {
    /// Runs a statement; `Err` holds ClickHouse's own message (`Code: N. DB::Exception: …`).
    pub fn query(&self, sql: &[u8], format: &str) -> Result<Vec<u8>, String> {
        type Query = unsafe extern "C" fn(Connection, *const c_char, usize, *const c_char, usize) -> Outcome;
        // SAFETY: the type is that of the C declaration.
        let query = unsafe { self.engine.symbol::<Query>(b"chdb_query_n\0") }.map_err(text)?;
        // SAFETY: the handle is open, both strings are valid for their lengths.
        let outcome = unsafe {
            query(*self.handle, sql.as_ptr().cast(), sql.len(), format.as_ptr().cast(), format.len())
        };
        self.take(outcome)
    }

    /// Inserts `rows`, encoded in `format`, by a statement without its FORMAT clause.
    pub fn insert(&self, sql: &str, format: &str, rows: &[u8]) -> Result<(), String> {
        type Open = unsafe extern "C" fn(Connection, *const c_char, usize, *const c_char, usize) -> Stream;
        type Append = unsafe extern "C" fn(Stream, *const c_void, usize) -> c_int;
        type Done = unsafe extern "C" fn(Stream) -> Outcome;
        type Fault = unsafe extern "C" fn(Stream) -> *const c_char;
        type Destroy = unsafe extern "C" fn(Stream);
        // SAFETY: the types are those of the C declarations.
        let (open, append, done, fault, destroy) = unsafe {
            (
                self.engine.symbol::<Open>(b"chdb_stream_insert_n\0").map_err(text)?,
                self.engine.symbol::<Append>(b"chdb_stream_append\0").map_err(text)?,
                self.engine.symbol::<Done>(b"chdb_stream_done\0").map_err(text)?,
                self.engine.symbol::<Fault>(b"chdb_stream_insert_error\0").map_err(text)?,
                self.engine.symbol::<Destroy>(b"chdb_destroy_insert_stream\0").map_err(text)?,
            )
        };
        // SAFETY: the handle is open, the strings valid for their lengths; the stream is never null and is destroyed
        // exactly once, after its last use; the message is copied before that.
        unsafe {
            let stream =
                open(*self.handle, sql.as_ptr().cast(), sql.len(), format.as_ptr().cast(), format.len());
            let mut failed = message(fault(stream));
            if failed.is_none() && append(stream, rows.as_ptr().cast(), rows.len()) != 0 {
                failed = Some(message(fault(stream)).unwrap_or_else(|| "Code: 1000. append failed".into()));
            }
            let end = match failed {
                Some(message) => Err(message),
                None => self.take(done(stream)).map(|_| ()),
            };
            destroy(stream);
            end
        }
    }

    fn take(&self, outcome: Outcome) -> Result<Vec<u8>, String> {
        if outcome.is_null() {
            return Err("Code: 1000. The engine gave no result".into());
        }
        // SAFETY: the types are those of the C declarations; the result is used before it is destroyed, once.
        unsafe {
            let bytes =
                self.engine.symbol::<unsafe extern "C" fn(Outcome) -> *const u8>(b"chdb_result_buffer\0");
            let length =
                self.engine.symbol::<unsafe extern "C" fn(Outcome) -> usize>(b"chdb_result_length\0");
            let fault =
                self.engine.symbol::<unsafe extern "C" fn(Outcome) -> *const c_char>(b"chdb_result_error\0");
            let destroy = self.engine.symbol::<unsafe extern "C" fn(Outcome)>(b"chdb_destroy_query_result\0");
            let (bytes, length) = (bytes.map_err(text)?, length.map_err(text)?);
            let (fault, destroy) = (fault.map_err(text)?, destroy.map_err(text)?);
            let taken = match message(fault(outcome)) {
                Some(message) => Err(message),
                None => {
                    let (start, length) = (bytes(outcome), length(outcome));
                    let empty = start.is_null() || length == 0;
                    Ok(if empty { Vec::new() } else { std::slice::from_raw_parts(start, length).to_vec() })
                }
            };
            destroy(outcome);
            taken
        }
    }
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        // SAFETY: the type is that of the C declaration.
        let close =
            unsafe { self.engine.symbol::<unsafe extern "C" fn(*mut Connection)>(b"chdb_close_conn\0") };
        if let Ok(close) = close {
            // SAFETY: the handle is open and not used after this.
            unsafe { close(self.handle) };
        }
    }
}

/// # Safety
/// `text` is null or a C string.
unsafe fn message(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, so a C string by the contract.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    (!text.is_empty()).then_some(text)
}

fn text(fault: io::Error) -> String {
    fault.to_string()
}
