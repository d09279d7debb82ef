//! The caller of a request, passed as a value to everything that acts on the caller's behalf.
//!
//! Invariant: the server puts one into every request before a service sees it; a request without one is refused.
//! Not here: what a caller may do.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Extensions;
use tonic::{Request, Status};

use super::status;

/// Who calls, and by which connection. There is no authentication: a caller is known by the address of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    connection: Connection,
}

/// How a caller is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Over TCP, from this address.
    Tcp(SocketAddr),
    /// Over the Unix socket.
    Unix,
}

impl Caller {
    /// The caller of a connection.
    pub fn connected(connection: Connection) -> Self {
        Self { connection }
    }

    /// Puts the caller into a request.
    pub fn attach(self, extensions: &mut Extensions) {
        extensions.insert(self);
    }

    /// The caller of a request.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let missing = || status::internal(&std::io::Error::other("a request has no caller"));
        request.extensions().get().copied().ok_or_else(missing)
    }

    /// The name under which the caller's changes are recorded.
    pub(super) fn actor(self) -> Arc<str> {
        match self.connection {
            Connection::Tcp(address) => address.ip().to_canonical().to_string().into(),
            Connection::Unix => "unix socket".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_names_no_caller_is_refused_and_an_address_is_recorded_without_its_port() {
        let mut request = Request::new(());
        assert_eq!(Caller::of(&request).unwrap_err().code(), tonic::Code::Internal);
        let caller = Caller::connected(Connection::Tcp("[::ffff:192.0.2.1]:443".parse().unwrap()));
        request.extensions_mut().insert(caller);
        assert_eq!(&*Caller::of(&request).unwrap().actor(), "192.0.2.1");
        assert_eq!(&*Caller::connected(Connection::Unix).actor(), "unix socket");
    }
}
