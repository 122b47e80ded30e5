//! What an agent hands to the one it turns into by `execve`: listening sockets and the lock of the pins. The sockets go on
//! queueing while nobody accepts, so an upgrade refuses no connection. It refuses descriptors that are not what they are
//! said to be: a number on a command line is no proof.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::net::sockopt;

use super::bpffs;

/// Descriptors that outlive an `execve`, by what they are.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// The lock on the folder of the pins.
    pub lock: Option<OwnedFd>,
    /// The control socket.
    pub control: Option<OwnedFd>,
    /// Listening sockets of the fence, of any network namespace and family: each can be asked for both.
    pub listeners: Vec<OwnedFd>,
    /// Sockets on which DNS questions arrive.
    pub questions: Vec<OwnedFd>,
}

impl Inheritance {
    /// Takes over what `text` lists (`lock=7,control=8,listen=9,listen=10`). The descriptors close at the next exec.
    ///
    /// # Errors
    /// A word that is not understood; a number that is no descriptor of its kind.
    pub fn adopt(text: &str) -> io::Result<Self> {
        let mut whole = Inheritance::default();
        for word in text.split(',') {
            let wrong = || io::Error::other(format!("--inherited {word:?} is not understood"));
            let (kind, number) = word.split_once('=').ok_or_else(wrong)?;
            let fd = adopt(number.parse().map_err(|_| wrong())?)?;
            match kind {
                "lock" if bpffs::is_pins(&fd) => whole.lock = Some(fd),
                "control" if is_listening(&fd) => whole.control = Some(fd),
                "dns" if is_datagram(&fd) => whole.questions.push(fd),
                "listen" if is_listening(&fd) => whole.listeners.push(fd),
                _ => return Err(wrong()),
            }
        }
        Ok(whole)
    }

    /// Marks every descriptor to stay open, and names them for the next program.
    ///
    /// # Errors
    /// A descriptor cannot be marked.
    pub fn bequeath(self) -> io::Result<String> {
        let mut words = Vec::new();
        let listeners = self.listeners.into_iter().map(|fd| ("listen", fd));
        let questions = self.questions.into_iter().map(|fd| ("dns", fd));
        let others = [self.lock.map(|fd| ("lock", fd)), self.control.map(|fd| ("control", fd))];
        for (kind, fd) in others.into_iter().flatten().chain(listeners).chain(questions) {
            rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty())?;
            words.push(format!("{kind}={}", fd.as_raw_fd()));
            std::mem::forget(fd);
        }
        Ok(words.join(","))
    }
}

fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    // Standard streams are nobody's inheritance.
    if number <= 2 {
        return Err(io::Error::other(format!("descriptor {number} cannot be inherited")));
    }
    // SAFETY: the process has just been started with this number on its command line by the agent it was, which kept the
    // descriptor open for it and leaked it; nothing else in this process owns it. A number that is not open fails below.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    if let Err(errno) = rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC) {
        // It is not open: closing it would close what somebody opens next.
        std::mem::forget(fd);
        return Err(io::Error::other(format!("descriptor {number} was not inherited: {errno}")));
    }
    Ok(fd)
}

fn is_listening(fd: &impl AsFd) -> bool {
    sockopt::socket_acceptconn(fd).unwrap_or(false)
}

fn is_datagram(fd: &impl AsFd) -> bool {
    sockopt::socket_type(fd).is_ok_and(|kind| kind == rustix::net::SocketType::DGRAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_descriptors_of_their_kind_are_adopted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let left = Inheritance { listeners: vec![listener.into()], ..Inheritance::default() };
        let text = left.bequeath().unwrap();
        assert!(text.starts_with("listen="), "{text}");
        let taken = Inheritance::adopt(&text).unwrap();
        let listener = std::net::TcpListener::from(taken.listeners.into_iter().next().unwrap());
        assert_eq!(listener.local_addr().unwrap(), address);
        for wrong in ["", "listen", "listen=x", "listen=1", "listen=999999", "tcp=9"] {
            assert!(Inheritance::adopt(wrong).is_err(), "{wrong}");
        }
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        let number = file.as_raw_fd();
        std::mem::forget(file);
        assert!(Inheritance::adopt(&format!("listen={number}")).is_err());
    }
}
