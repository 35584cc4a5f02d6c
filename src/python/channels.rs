//! Serving calls: reads one from a channel, has the script run it, writes the answer.
//!
//! Without gevent a thread blocks in its channels. With gevent there is one thread, and it may block in gevent's hub
//! only: sockets are non-blocking then, and what is not ready is waited for by `wait` of `greenlets.py`.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCFunction, PyDict, PyList, PyString, PyTuple};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use sagemaker_tfs::worker_protocol::frame::{self, Answer, Call, Incoming, MAX_BODY_BYTES, Shape};
use sagemaker_tfs::worker_protocol::record::{self, Account, Record, Runs};

use crate::hub::{Cooperative, Hub};
use crate::script::{Returned, Script};

/// A socket on which calls and answers alternate.
pub struct Channel {
    index: usize,
    /// The socket.
    pub socket: UnixStream,
    record: Arc<Record>,
    /// The context of the request that is on its way.
    context: Option<Py<PyAny>>,
    /// How it is waited for; `None`: by blocking.
    hub: Option<Hub>,
    /// Computing time, when calls are greenlets.
    account: Option<Arc<Mutex<Account>>>,
    /// The process that serves it: a script may fork.
    process: u32,
}

/// What came of waiting for a call.
enum Next {
    Done,
    Interrupted,
    /// The server has closed the channel.
    Closed,
}

impl Channel {
    pub fn new(index: usize, socket: UnixStream, record: Arc<Record>) -> Self {
        Self {
            index,
            socket,
            record,
            context: None,
            hub: None,
            account: None,
            process: std::process::id(),
        }
    }

    /// From now on it is waited for in gevent's hub, by calling `wait`.
    fn wait_in_hub(&mut self, wait: Py<PyAny>) -> io::Result<()> {
        self.socket.set_nonblocking(true)?;
        self.hub = Some(Hub(wait));
        Ok(())
    }

    /// Reads or writes, without keeping Python from others.
    fn transfer<T: Send>(
        &self,
        py: Python,
        how: impl FnOnce(&mut dyn Socket) -> io::Result<T> + Send,
    ) -> io::Result<T> {
        let socket = &self.socket;
        match &self.hub {
            None => py.detach(|| how(&mut &*socket)),
            Some(hub) => how(&mut Cooperative { socket, hub, py }),
        }
    }

    /// Waits for a call and answers it.
    fn serve(&mut self, py: Python, script: &Script) -> io::Result<Next> {
        let incoming = match self.transfer(py, |socket| Incoming::read(socket)) {
            Ok(Some(incoming)) => incoming,
            Ok(None) => return Ok(Next::Closed),
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(Next::Interrupted),
            Err(e) => return Err(e),
        };
        let call: Call = incoming.head()?;
        let number = call.number();
        // From here on the call is ours: whatever the body does to this process, it does to no other.
        match &self.account {
            None => self.record.begin(self.index, number)?,
            Some(account) => lock(account).begin(self.index, number)?,
        }
        let body = self.body(py, &incoming, number)?;
        // Checked after the call is recorded as begun. The server closes a channel before it reads the record, so a call
        // that it gives to another worker never runs here.
        if self.is_closed() {
            return Ok(Next::Closed);
        }
        if self.record.is_cancelled(self.index, number)? {
            // Checked after the body is read: the server cancels a call before it sends zeros in place of its body. It reads
            // over the answer.
            self.context = None;
            let head = Answer::Raised { number };
            self.transfer(py, |socket| frame::write(socket, &head, b""))?;
            return Ok(Next::Done);
        }
        let returned = match (body, call) {
            (Err(error), _) => Err(error),
            (Ok(body), Call::Request { context, .. }) => {
                let result = script.request(py, &context, body);
                result.map(|(context, returned)| {
                    self.context = (script.shape() == Shape::Pair).then_some(context);
                    returned
                })
            }
            (Ok(body), Call::Response { response, .. }) => {
                let context = self.context.take();
                let context = context.ok_or(io::Error::from(ErrorKind::InvalidData))?;
                script.response(py, &context, &response, body)
            }
        };
        if std::process::id() != self.process {
            end_fork(py, script, returned.err());
        }
        self.answer(py, script, number, returned)?;
        Ok(Next::Done)
    }

    /// The body of a call, or Python's error when there is no memory for it. Empty if nobody waits for the call: the server
    /// counts the memory of a body no longer then, and there may be as many such calls as channels.
    fn body<'py>(
        &self,
        py: Python<'py>,
        incoming: &Incoming,
        number: u64,
    ) -> io::Result<PyResult<Bound<'py, PyBytes>>> {
        let start = incoming.body_start();
        if start.len() == incoming.body_length {
            return Ok(Ok(PyBytes::new(py, start)));
        }
        if self.record.is_cancelled(self.index, number)? {
            self.transfer(py, |socket| incoming.skip_body(socket))?;
            return Ok(Ok(PyBytes::new(py, b"")));
        }
        let mut read = Ok(());
        let body = PyBytes::new_with(py, incoming.body_length, |body| {
            read = self.transfer(py, |socket| incoming.read_body(socket, body));
            Ok(())
        });
        read?;
        if body.is_err() {
            self.transfer(py, |socket| incoming.skip_body(socket))?;
        }
        Ok(body)
    }

    /// Whether the server has given the channel up.
    fn is_closed(&self) -> bool {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(&self.socket, &mut byte, flags).is_ok_and(|(read, _)| read == 0)
    }

    fn answer(
        &self,
        py: Python,
        script: &Script,
        number: u64,
        returned: PyResult<Returned>,
    ) -> io::Result<()> {
        let error = match &returned {
            Ok(returned) => match returned.parts() {
                Ok((content_type, body)) => {
                    let content_type = content_type.into();
                    let head = match self.context {
                        Some(_) => Answer::ForModelServer {
                            number,
                            content_type,
                        },
                        None => Answer::ForClient {
                            number,
                            content_type,
                        },
                    };
                    return self.transfer(py, |socket| frame::write(socket, &head, body));
                }
                Err(error) => error,
            },
            Err(error) => error.clone_ref(py),
        };
        let text = script.report(py, &error);
        let head = Answer::Raised { number };
        self.transfer(py, |socket| frame::write(socket, &head, text.as_bytes()))
    }
}

/// Ends a forked process that returned from the call in which it was forked. Only the parent may answer.
fn end_fork(py: Python, script: &Script, error: Option<PyErr>) -> ! {
    if let Some(error) = error {
        script.report(py, &error);
    }
    exit_fork(py, "returned from a call")
}

/// Ends a forked process at once, without the exit handlers that its parent registered.
pub fn exit_fork(py: Python, what: &str) -> ! {
    let process = std::process::id();
    eprintln!(
        "sagemaker-tfs-python: forked process {process} {what}, which is for its parent to do: it ends"
    );
    let os = py.import("os");
    let _ = os.and_then(|os| os.call_method1("_exit", (1,)));
    std::process::abort();
}

/// What frames are read from and written to.
trait Socket: Read + Write {}

impl<T: Read + Write> Socket for T {}

impl Returned<'_> {
    /// Content type and body as they go on the wire; text as UTF-8, without a copy where Python has it so.
    fn parts(&self) -> PyResult<(&str, &[u8])> {
        let body = match self.body.cast::<PyString>() {
            Ok(text) => text.to_str()?.as_bytes(),
            Err(_) => self.body.cast::<PyBytes>()?.as_bytes(),
        };
        if body.len() > MAX_BODY_BYTES {
            let text = format!("the body has {} bytes, which is too much", body.len());
            return Err(PyValueError::new_err(text));
        }
        Ok((self.content_type.to_str()?, body))
    }
}

/// Serves calls on these channels, one at a time, until the server closes them.
pub fn serve(script: &Script, mut channels: Vec<Channel>) {
    // Attached once for all calls: what a script keeps for its thread must not end with a call.
    let served = Python::attach(|py| {
        let hub = use_hub(py, script, &mut channels)?;
        match channels.len() {
            1 => serve_one(py, script, channels),
            _ => serve_all(py, script, channels, hub.as_ref()),
        }
    });
    report(served);
}

/// Serves calls on these channels, each in a greenlet, until the server closes them.
pub fn serve_in_greenlets(script: &Arc<Script>, mut channels: Vec<Channel>) {
    let served = Python::attach(|py| {
        use_hub(py, script, &mut channels)?;
        let greenlets = script.greenlets().ok_or(ErrorKind::Unsupported)?;
        let account = Account::new(Arc::clone(&channels[0].record), channels.len());
        let account = Arc::new(Mutex::new(account));
        let calls = channels.into_iter().map(|mut channel| {
            channel.account = Some(Arc::clone(&account));
            let place = (channel.index, channel.socket.as_raw_fd());
            let serve = one_call(Arc::clone(script), channel);
            Ok((place, PyCFunction::new_closure(py, None, None, serve)?))
        });
        let calls = calls.collect::<PyResult<Vec<_>>>();
        let calls = calls.and_then(|calls| PyList::new(py, calls));
        let switched = PyCFunction::new_closure(py, None, None, switches(account));
        let served = calls.and_then(|calls| {
            let greenlets = greenlets.bind(py);
            greenlets.call_method1("serve", (calls, switched?))
        });
        served.map(drop).map_err(other)
    });
    report(served);
}

/// A function that serves one call on this channel: whether others may follow. It is called again when it has returned.
fn one_call(
    script: Arc<Script>,
    channel: Channel,
) -> impl Fn(&Bound<PyTuple>, Option<&Bound<PyDict>>) -> bool + Send + Sync + 'static {
    let channel = Mutex::new(channel);
    move |arguments, _| {
        let mut channel = channel.try_lock().expect("nobody else serves it");
        match channel.serve(arguments.py(), &script) {
            Ok(Next::Done | Next::Interrupted) => true,
            Ok(Next::Closed) => false,
            Err(e) => {
                report(Err(e));
                false
            }
        }
    }
}

/// A function that records which greenlet gets the thread: the number of a call's channel, -1 for the hub, -2 for other
/// greenlets.
fn switches(
    account: Arc<Mutex<Account>>,
) -> impl Fn(&Bound<PyTuple>, Option<&Bound<PyDict>>) -> PyResult<()> + Send + Sync + 'static {
    move |arguments, _| {
        let (place,): (i64,) = arguments.extract()?;
        let runs = match place {
            -1 => Runs::Hub,
            _ => usize::try_from(place).map_or(Runs::Other, Runs::Call),
        };
        // Fails when the script has closed the record. An exception here would be raised in the script.
        let _ = lock(&account).switched(runs, record::now());
        Ok(())
    }
}

fn lock(account: &Mutex<Account>) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

fn other(error: PyErr) -> io::Error {
    io::Error::other(error.to_string())
}

fn report(served: io::Result<()>) {
    if let Err(e) = served {
        eprintln!("sagemaker-tfs-python: {e}");
    }
}

/// Has these channels waited for in gevent's hub, if there is one.
fn use_hub(py: Python, script: &Script, channels: &mut [Channel]) -> io::Result<Option<Hub>> {
    let Some(greenlets) = script.greenlets() else {
        return Ok(None);
    };
    let wait = greenlets.getattr(py, "wait").map_err(other)?;
    for channel in channels {
        channel.wait_in_hub(wait.clone_ref(py))?;
    }
    Ok(Some(Hub(wait)))
}

fn serve_one(py: Python, script: &Script, mut channels: Vec<Channel>) -> io::Result<()> {
    loop {
        match channels[0].serve(py, script)? {
            Next::Done => {}
            Next::Interrupted => run_signal_handlers(py),
            Next::Closed => return Ok(()),
        }
    }
}

fn serve_all(
    py: Python,
    script: &Script,
    channels: Vec<Channel>,
    hub: Option<&Hub>,
) -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    for (index, channel) in channels.iter().enumerate() {
        let data = EventData::new_u64(index as u64);
        epoll::add(&epoll, &channel.socket, data, EventFlags::IN)?;
    }
    let mut channels: Vec<_> = channels.into_iter().map(Some).collect();
    let mut ready = Vec::with_capacity(channels.len());
    while channels.iter().any(Option::is_some) {
        ready.clear();
        if let Some(hub) = hub {
            // An epoll can be waited for like a socket.
            hub.wait(py, &epoll, false)?;
        }
        match py.detach(|| wait(&epoll, hub.is_some(), &mut ready)) {
            Ok(()) => {}
            Err(Errno::INTR) => run_signal_handlers(py),
            Err(e) => return Err(e.into()),
        }
        for &index in &ready {
            let place = &mut channels[index];
            let Some(channel) = place else {
                continue;
            };
            match channel.serve(py, script) {
                Ok(Next::Done) => {}
                Ok(Next::Interrupted) => run_signal_handlers(py),
                // A channel that breaks in mid-frame was given up by the server. Dropped, it leaves epoll.
                Ok(Next::Closed) | Err(_) => *place = None,
            }
        }
    }
    Ok(())
}

/// Waits until there is something on some channels, or only looks: their numbers.
fn wait(epoll: &OwnedFd, only_look: bool, ready: &mut Vec<usize>) -> rustix::io::Result<()> {
    let mut events = Vec::with_capacity(ready.capacity());
    let at_once = Timespec::default();
    let timeout = only_look.then_some(&at_once);
    epoll::wait(epoll, spare_capacity(&mut events), timeout)?;
    ready.extend(events.iter().map(|event| event.data.u64() as usize));
    Ok(())
}

/// Runs the script's own handlers of signals that came while it had nothing to do.
fn run_signal_handlers(py: Python) {
    if let Err(error) = py.check_signals() {
        // KeyboardInterrupt: when to end is for the server to say, which got the same Ctrl-C.
        drop(error);
    }
}
