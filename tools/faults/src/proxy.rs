//! A TCP proxy between clients and the daemon, which can swallow answers on their way back.
//!
//! Separate from the client: the request arrives whole and is carried out, only nobody hears of it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::client::Raw;

/// A connection without traffic is given up after this.
const QUIET_MAX: Duration = Duration::from_mins(1);

/// What is to happen to answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answers {
    /// They pass.
    Pass,
    /// The next so many of a connection pass, the rest is swallowed until the connection is cut.
    PassThenSwallow(usize),
    /// Of all connections every so-manieth is swallowed, and its connection cut behind it.
    CutEvery(u32),
}

/// See the file. It lives as long as the process.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    answers: Answers,
    seen: u32,
    swallowed: Vec<Bytes>,
    connections: Vec<TcpStream>,
}

impl Proxy {
    /// Between clients and this broker.
    pub fn start(broker: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = State {
            answers: Answers::Pass,
            seen: 0,
            swallowed: Vec::new(),
            connections: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let _ = carry(client, broker, &shared); // A broker that is down: they come again.
            }
        });
        Ok(Self { address, state })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says what happens to answers from now on.
    pub fn answers(&self, answers: Answers) {
        lock(&self.state).answers = answers;
    }

    /// Waits until so many answers were swallowed, and hands them out.
    pub fn swallowed(&self, count: usize, at_most: Duration) -> Vec<Bytes> {
        let until = Instant::now() + at_most;
        while lock(&self.state).swallowed.len() < count && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::mem::take(&mut lock(&self.state).swallowed)
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        for connection in lock(&self.state).connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both); // Gone already.
        }
    }
}

fn carry(client: TcpStream, broker: SocketAddr, state: &Arc<Mutex<State>>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let upstream = TcpStream::connect(broker)?;
    upstream.set_nodelay(true)?;
    {
        let mut state = lock(state);
        state.connections.push(client.try_clone()?);
        state.connections.push(upstream.try_clone()?);
    }
    let (mut from_client, mut to_broker) = (client.try_clone()?, upstream.try_clone()?);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_client.read(&mut buffer) {
            if to_broker.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to_broker.shutdown(Shutdown::Both);
    });
    let (state, mut client) = (Arc::clone(state), client);
    std::thread::spawn(move || {
        let (mut answers, mut passed) = (Raw::from(upstream), 0);
        while let Ok(frame) = answers.frame(Instant::now() + QUIET_MAX) {
            let (swallow, cut) = lock(&state).fate(passed);
            if swallow {
                lock(&state).swallowed.push(frame);
            } else {
                passed += 1;
                let length = (frame.len() as u32).to_be_bytes();
                if client.write_all(&[&length[..], &frame].concat()).is_err() {
                    break;
                }
            }
            if cut {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        answers.finish();
    });
    Ok(())
}

impl State {
    /// Whether the next answer of a connection that `passed` so many is swallowed; and then cut.
    fn fate(&mut self, passed: usize) -> (bool, bool) {
        self.seen += 1;
        match self.answers {
            Answers::Pass => (false, false),
            Answers::PassThenSwallow(count) => (passed >= count, false),
            Answers::CutEvery(count) => {
                let cut = self.seen.is_multiple_of(count);
                if cut {
                    self.swallowed.clear(); // Nobody asks for these.
                }
                (cut, cut)
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
