//! Serving calls: reads one from a channel, has the script run it, writes the answer.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use pyo3::exceptions::{PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use sagemaker_tfs::handlers::frame::{self, Answer, Call, Incoming, MAX_BODY_BYTES, Shape};
use sagemaker_tfs::handlers::record::{self, Record};

use crate::script::{Returned, Script};

/// A socket on which calls and answers alternate.
pub struct Channel {
    index: usize,
    /// The socket.
    pub socket: UnixStream,
    record: Arc<Record>,
    /// The context of the request that is on its way.
    context: Option<Py<PyAny>>,
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
        }
    }

    /// Waits for a call and answers it.
    fn serve(&mut self, py: Python, script: &Script) -> io::Result<Next> {
        let incoming = match py.detach(|| Incoming::read(&self.socket)) {
            Ok(Some(incoming)) => incoming,
            Ok(None) => return Ok(Next::Closed),
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(Next::Interrupted),
            Err(e) => return Err(e),
        };
        let call: Call = incoming.head()?;
        let (number, deadline) = call.place();
        // From here on the call is ours: whatever the body does to this process, it does to no other.
        self.record.begin(self.index, number)?;
        let mut read = Ok(());
        let body = PyBytes::new_with(py, incoming.body_length, |body| {
            if body.len() == incoming.body_start().len() {
                body.copy_from_slice(incoming.body_start());
            } else {
                read = py.detach(|| incoming.read_body(&self.socket, body));
            }
            Ok(())
        });
        read?;
        if body.is_err() {
            // There is no memory for it.
            py.detach(|| incoming.skip_body(&self.socket))?;
        }
        let returned = match (body, call) {
            (Err(error), _) => Err(error),
            // Nobody waits for the answer any more, but it is counted on.
            _ if u128::from(deadline) < record::now().as_nanos() => {
                Err(PyTimeoutError::new_err("the request's deadline has passed"))
            }
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
        self.answer(py, script, number, returned)?;
        Ok(Next::Done)
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
                    return py.detach(|| frame::write(&self.socket, &head, body));
                }
                Err(error) => error,
            },
            Err(error) => error.clone_ref(py),
        };
        let text = script.report(py, &error);
        let head = Answer::Raised { number };
        py.detach(|| frame::write(&self.socket, &head, text.as_bytes()))
    }
}

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
pub fn serve(script: &Script, channels: Vec<Channel>) {
    // Attached once for all calls: what a script keeps for its thread must not end with a call.
    let served = Python::attach(|py| match channels.len() {
        1 => serve_one(py, script, channels),
        _ => serve_all(py, script, channels),
    });
    if let Err(e) = served {
        eprintln!("sagemaker-tfs-python: {e}");
    }
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

fn serve_all(py: Python, script: &Script, channels: Vec<Channel>) -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    for (index, channel) in channels.iter().enumerate() {
        let data = EventData::new_u64(index as u64);
        epoll::add(&epoll, &channel.socket, data, EventFlags::IN)?;
    }
    let mut channels: Vec<_> = channels.into_iter().map(Some).collect();
    let mut ready = Vec::with_capacity(channels.len());
    while channels.iter().any(Option::is_some) {
        ready.clear();
        match py.detach(|| wait(&epoll, &mut ready)) {
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

/// Waits until there is something on some channels: their numbers.
fn wait(epoll: &OwnedFd, ready: &mut Vec<usize>) -> rustix::io::Result<()> {
    let mut events = Vec::with_capacity(ready.capacity());
    epoll::wait(epoll, spare_capacity(&mut events), None)?;
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
