//! The address of a server, as people write it.
//!
//! Invariant: an address that parsed has a host or a path of a socket, and nothing that would be ignored.
//! Not here: whether anybody listens there.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;
use tonic::transport::{Endpoint, Uri};

/// Where a server is when nobody says otherwise: where `portcullis serve` listens by default.
pub const DEFAULT_ADDRESS: &str = "http://127.0.0.1:7070";

/// Long enough for a connection across the world, short enough for somebody who mistyped the address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a server listens: parsed from `http://HOST:PORT`, `HOST:PORT` or `unix:PATH`.
#[derive(Clone, Debug)]
pub struct ServerAddress {
    endpoint: Endpoint,
}

/// Why a text is no address of a server. Each message says how to write one.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// It has no host, a scheme of something else, or a path.
    #[error("`{0}` is no address of a server: write it as `{DEFAULT_ADDRESS}` or `HOST:PORT`")]
    Malformed(String),
    /// What follows `unix:` is no path.
    #[error("`{0}` is no path of a socket: write it as `unix:PATH`")]
    MalformedPath(String),
    /// It begins with `https://`; what follows is here.
    #[error("`https://{0}` asks for TLS, which this version does not have: write `http://{0}`")]
    Tls(String),
}

impl ServerAddress {
    /// What a channel connects to.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let endpoint = match text.strip_prefix("unix:") {
            Some(path) => socket(path).ok_or_else(|| AddressError::MalformedPath(text.to_owned()))?,
            None => tcp(text)?,
        };
        Ok(Self { endpoint: endpoint.connect_timeout(CONNECT_TIMEOUT) })
    }
}

fn socket(path: &str) -> Option<Endpoint> {
    let path = path.strip_prefix("//").unwrap_or(path);
    Endpoint::from_shared(format!("unix:{path}")).ok()
}

fn tcp(text: &str) -> Result<Endpoint, AddressError> {
    let malformed = || AddressError::Malformed(text.to_owned());
    let uri = match text.split_once("://") {
        Some(("http", _)) => text.to_owned(),
        Some(("https", rest)) => return Err(AddressError::Tls(rest.to_owned())),
        Some(_) => return Err(malformed()),
        None => format!("http://{text}"),
    };
    let uri: Uri = uri.parse().map_err(|_| malformed())?;
    if uri.host().is_none_or(str::is_empty) || uri.path() != "/" || uri.query().is_some() {
        return Err(malformed());
    }
    Ok(Endpoint::from(uri))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_a_host_or_a_socket_and_nothing_beside() {
        for text in ["http://127.0.0.1:7070", "localhost:7070", "[::1]:7070", "unix:/run/p.sock", "unix:///run/p.sock"]
        {
            assert!(text.parse::<ServerAddress>().is_ok(), "{text}");
        }
        for text in ["", "http://", "ftp://host", "host:1/path", "http://host:1?query"] {
            assert_eq!(text.parse::<ServerAddress>().err(), Some(AddressError::Malformed(text.to_owned())));
        }
        let tls = "https://host:1".parse::<ServerAddress>().err();
        let advice = "`https://host:1` asks for TLS, which this version does not have: write `http://host:1`";
        assert_eq!(tls.map(|error| error.to_string()).as_deref(), Some(advice));
    }
}
