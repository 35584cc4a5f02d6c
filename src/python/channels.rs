//! Serves calls: reads a call from a channel, has the script run it, and writes the answer.
//!
//! Without gevent, threads block on their channels. With gevent, a single thread serves all channels and may block in
//! gevent's hub only, so sockets are non-blocking, and `wait` of `greenlets.py` waits until they are ready.

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
use sagemaker_tfs::worker_protocol::frame::{
    self, Answer, Call, Incoming, MAX_BODY_BYTES, Outgoing, Shape,
};
use sagemaker_tfs::worker_protocol::record::{self, Account, Record, Runs};

use crate::hub::{Cooperative, Hub};
use crate::script::{Returned, Script, borrowed};

/// A socket on which calls and answers alternate.
pub struct Channel {
    index: usize,
    /// The worker's end of the socketpair.
    pub socket: UnixStream,
    record: Arc<Record>,
    /// The context that the request's `output_handler` needs; set between the two calls of a pair.
    context: Option<Py<PyAny>>,
    /// gevent's hub, which waits for the socket; `None`: the thread blocks.
    hub: Option<Hub>,
    /// The account of computing time, when calls are greenlets.
    account: Option<Arc<Mutex<Account>>>,
    /// Id of the process that serves the channel, to recognize a process that the script forked.
    process: u32,
}

/// The result of serving one call.
enum Next {
    Done,
    /// A signal interrupted the wait for a call.
    Interrupted,
    /// The server has closed the channel.
    Closed,
}

impl Channel {
    /// Channel `index` of this process. Threads block on it.
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

    /// Makes later reads and writes wait in gevent's hub, by calling `wait`.
    fn wait_in_hub(&mut self, wait: Py<PyAny>) -> io::Result<()> {
        self.socket.set_nonblocking(true)?;
        self.hub = Some(Hub(wait));
        Ok(())
    }

    /// Reads or writes, and lets other Python threads or greenlets run while it waits.
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

    /// Waits for a call, runs it, and answers it.
    fn serve(&mut self, py: Python, script: &Script) -> io::Result<Next> {
        let incoming = match self.transfer(py, |socket| Incoming::read(socket)) {
            Ok(Some(incoming)) => incoming,
            Ok(None) => return Ok(Next::Closed),
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(Next::Interrupted),
            Err(e) => return Err(e),
        };
        let call: Call = incoming.head()?;
        let number = call.number();
        // Recorded before the body is read: if the body ends this process, no other process gets the call.
        match &self.account {
            None => self.record.begin(self.index, number)?,
            Some(account) => lock(account).begin(self.index, number)?,
        }
        let body = self.body(py, &incoming, number)?;
        // Checked after the call is recorded as begun. The server closes a channel before it reads the record, so a
        // call that the server gives to another worker never runs here.
        if self.is_closed() {
            return Ok(Next::Closed);
        }
        if self.record.is_cancelled(self.index, number)? {
            // Checked after the body is read, because the server cancels a call before it sends zeros in place of the
            // body. The server skips the answer.
            self.context = None;
            let head = Answer::Raised {
                number,
                status: None,
            };
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

    /// Reads the body of a call. The inner error is Python's, when memory is used up. The body of a cancelled call is
    /// skipped and comes out empty: the server no longer counts its memory, and as many calls as channels may be
    /// cancelled.
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

    /// Whether the server has closed the channel.
    fn is_closed(&self) -> bool {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(&self.socket, &mut byte, flags).is_ok_and(|(read, _)| read == 0)
    }

    /// Sends the answer to call `number`.
    fn answer(
        &self,
        py: Python,
        script: &Script,
        number: u64,
        returned: PyResult<Returned>,
    ) -> io::Result<()> {
        let error = match returned.and_then(|returned| self.write_result(py, number, &returned)) {
            Ok(written) => return written,
            Err(error) => error,
        };
        let report = script.report(py, &error);
        let (head, body) = report.answer(number);
        self.transfer(py, |socket| frame::write(socket, &head, body))
    }

    /// Sends the result of a function. The outer error is Python's, for what cannot be sent; nothing is sent then.
    fn write_result(
        &self,
        py: Python,
        number: u64,
        returned: &Returned,
    ) -> PyResult<io::Result<()>> {
        let (content_type, body) = returned.parts()?;
        let content_type = content_type.into();
        let head = match self.context {
            Some(_) => Answer::ForModelServer {
                number,
                content_type,
            },
            None => Answer::ForClient {
                number,
                content_type,
                headers: borrowed(returned.headers.as_deref().unwrap_or_default()),
            },
        };
        let frame = Outgoing::new(&head, body);
        let mut frame = frame.map_err(|e| PyValueError::new_err(e.to_string()))?;
        Ok(self.transfer(py, |socket| frame.write(socket)))
    }
}

/// Ends a forked process that returned from the call in which the script forked it. Only the parent may answer.
fn end_fork(py: Python, script: &Script, error: Option<PyErr>) -> ! {
    if let Some(error) = error {
        script.report(py, &error);
    }
    exit_fork(py, "returned from a call")
}

/// Ends a forked process at once, without the exit handlers that its parent registered. `what` says what the process
/// did.
pub fn exit_fork(py: Python, what: &str) -> ! {
    let process = std::process::id();
    eprintln!(
        "sagemaker-tfs-python: forked process {process} {what}, which only its parent may do; the process ends"
    );
    let os = py.import("os");
    let _ = os.and_then(|os| os.call_method1("_exit", (1,)));
    std::process::abort();
}

/// A stream that frames are read from and written to.
trait Socket: Read + Write {}

impl<T: Read + Write> Socket for T {}

impl Returned<'_> {
    /// The content type and the body's bytes. Text is encoded as UTF-8, without a copy if Python stores it as UTF-8.
    fn parts(&self) -> PyResult<(&str, &[u8])> {
        let body = match self.body.cast::<PyString>() {
            Ok(text) => text.to_str()?.as_bytes(),
            Err(_) => self.body.cast::<PyBytes>()?.as_bytes(),
        };
        if body.len() > MAX_BODY_BYTES {
            let text = format!(
                "the body has {} bytes, more than {MAX_BODY_BYTES}",
                body.len()
            );
            return Err(PyValueError::new_err(text));
        }
        Ok((self.content_type.to_str()?, body))
    }
}

/// Serves calls on these channels, one at a time, until the server closes them.
pub fn serve(script: &Script, mut channels: Vec<Channel>) {
    // Attached once for all calls, because detaching would end the script's thread-local data.
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

/// A Python function that serves one call on this channel and returns whether more may follow. `greenlets.py` never
/// calls it twice at once.
fn one_call(
    script: Arc<Script>,
    channel: Channel,
) -> impl Fn(&Bound<PyTuple>, Option<&Bound<PyDict>>) -> bool + Send + Sync + 'static {
    let channel = Mutex::new(channel);
    move |arguments, _| {
        let mut channel = channel
            .try_lock()
            .expect("one greenlet at a time serves a channel");
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

/// A Python function that records which greenlet runs from now on. Its argument is the number of a call's channel, -1
/// for the hub, or -2 for any other greenlet.
fn switches(
    account: Arc<Mutex<Account>>,
) -> impl Fn(&Bound<PyTuple>, Option<&Bound<PyDict>>) -> PyResult<()> + Send + Sync + 'static {
    move |arguments, _| {
        let (place,): (i64,) = arguments.extract()?;
        let runs = match place {
            -1 => Runs::Hub,
            _ => usize::try_from(place).map_or(Runs::Other, Runs::Call),
        };
        // Fails when the script has closed the record. Ignored, because an exception here would be raised in the
        // script.
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

/// Makes these channels wait in gevent's hub, if the worker uses gevent.
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
            // An epoll is readable when one of its sockets is, so the hub can wait for it.
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
                // On an error in the middle of a frame, the server has closed the channel. Dropping it removes it from
                // the epoll.
                Ok(Next::Closed) | Err(_) => *place = None,
            }
        }
    }
    Ok(())
}

/// Adds the numbers of channels that are readable to `ready`. Waits for one, unless `only_look` is set.
fn wait(epoll: &OwnedFd, only_look: bool, ready: &mut Vec<usize>) -> rustix::io::Result<()> {
    let mut events = Vec::with_capacity(ready.capacity());
    let at_once = Timespec::default();
    let timeout = only_look.then_some(&at_once);
    epoll::wait(epoll, spare_capacity(&mut events), timeout)?;
    ready.extend(events.iter().map(|event| event.data.u64() as usize));
    Ok(())
}

/// Runs the script's handlers of signals that came while no call was running.
fn run_signal_handlers(py: Python) {
    if let Err(error) = py.check_signals() {
        // KeyboardInterrupt is ignored: the server got the same Ctrl-C and decides when this process ends.
        drop(error);
    }
}
