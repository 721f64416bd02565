//! Listeners: where the daemon listens, and what it tells clients to connect to.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A name with an address: `PLAINTEXT://host:9092`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The listener's name, in upper case.
    pub listener: String,
    /// A name or address; `None` for all interfaces (in `listeners`) or this host's own name (in
    /// `advertised.listeners`).
    pub host: Option<String>,
    /// The port; 0 lets the kernel choose one.
    pub port: u16,
}

impl Endpoint {
    /// Reads `NAME://host:port`, where the host may be empty, or in brackets.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no listener: expected NAME://host:port");
        let (name, address) = text.trim().split_once("://").ok_or_else(bad)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_host =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '%' | '.' | '_' | ':');
        if name.trim().is_empty() || !host.chars().all(is_host) {
            return Err(bad());
        }
        let port = port.parse().map_err(|_| bad())?;
        let host = (!host.is_empty()).then(|| host.to_owned());
        Ok(Self { listener: name.trim().to_uppercase(), host, port })
    }

    fn is_ipv4(&self) -> bool {
        self.host.as_deref().is_some_and(|host| host.parse::<core::net::Ipv4Addr>().is_ok())
    }

    fn is_ipv6(&self) -> bool {
        self.host.as_deref().is_some_and(|host| host.parse::<core::net::Ipv6Addr>().is_ok())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.as_deref().unwrap_or_default();
        if self.is_ipv6() {
            write!(f, "{}://[{host}]:{}", self.listener, self.port)
        } else {
            write!(f, "{}://{host}:{}", self.listener, self.port)
        }
    }
}

/// Reads a whole list; every entry that is none is named.
pub(crate) fn parse_all(items: &[String], problems: &mut Vec<String>) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for item in items {
        match Endpoint::parse(item) {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(problem) => problems.push(problem),
        }
    }
    endpoints
}

/// Each listener has its own name; and its own port, except that one IPv4 and one IPv6 address may
/// share one (KIP-797).
pub(crate) fn check_distinct(endpoints: &[Endpoint], ports_too: bool, problems: &mut Vec<String>) {
    for (at, second) in endpoints.iter().enumerate() {
        for first in &endpoints[..at] {
            let (name, port) = (&second.listener, second.port);
            let two_families =
                first.is_ipv4() && second.is_ipv6() || first.is_ipv6() && second.is_ipv4();
            if first.listener == *name && !(two_families && first.port == port) {
                problems.push(format!(
                    "Each listener must have a different name, but {name} comes twice"
                ));
            } else if ports_too && first.port == port && port != 0 && !two_families {
                problems.push(format!(
                    "Each listener must have a different port, but {port} comes twice"
                ));
            }
        }
    }
}

/// `NAME:PROTOCOL` pairs, in the order they are written.
pub(crate) fn parse_protocols(text: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, protocol) = pair.split_once(':').ok_or_else(|| {
                format!("{pair:?} is no NAME:PROTOCOL of listener.security.protocol.map")
            })?;
            let protocol = protocol.trim().to_uppercase();
            match protocol.as_str() {
                "PLAINTEXT" | "SSL" | "SASL_PLAINTEXT" | "SASL_SSL" => {
                    Ok((name.trim().to_uppercase(), protocol))
                }
                _ => Err(format!("{protocol} is no security protocol")),
            }
        })
        .collect()
}

/// `host:port`, the port not 0 unless `any_port`.
pub(crate) fn parse_address(text: &str) -> Result<(String, u16), String> {
    let endpoint = Endpoint::parse(&format!("A://{text}"));
    match endpoint {
        Ok(Endpoint { host: Some(host), port, .. }) => Ok((host, port)),
        Ok(_) | Err(_) => Err(format!("{text:?} is no address: expected host:port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written() {
        for (text, listener, host, port) in [
            ("PLAINTEXT://:9092", "PLAINTEXT", None, 9092),
            ("plaintext://localhost:0", "PLAINTEXT", Some("localhost"), 0),
            ("EXTERNAL://[::1]:9094", "EXTERNAL", Some("::1"), 9094),
            (" A://10.0.0.1:1 ", "A", Some("10.0.0.1"), 1),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.listener, listener);
            assert_eq!((endpoint.host.as_deref(), endpoint.port), (host, port));
            assert_eq!(endpoint.to_string().to_uppercase(), text.trim().to_uppercase());
        }
        for bad in ["", "localhost:9092", "A://h", "A://h:70000", "A://h:-1", "://h:1", "A://a/b:1"]
        {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_ports_are_distinct() {
        for (list, problems) in [
            ("A://:1,B://:2", 0),
            ("A://:1,A://:2", 1),
            ("A://:1,B://:1", 1),
            ("A://:0,B://:0", 0),
            ("A://127.0.0.1:1,B://[::1]:1", 0),
            ("A://127.0.0.1:1,A://[::1]:1", 0),
            ("A://127.0.0.1:1,B://10.0.0.1:1", 1),
        ] {
            let endpoints: Vec<_> =
                list.split(',').map(|text| Endpoint::parse(text).unwrap()).collect();
            let mut found = Vec::new();
            check_distinct(&endpoints, true, &mut found);
            assert_eq!(found.len(), problems, "{list}: {found:?}");
        }
    }

    #[test]
    fn protocols_and_addresses() {
        let map = parse_protocols("PLAINTEXT:PLAINTEXT, external:ssl").unwrap();
        assert_eq!(map[1], ("EXTERNAL".to_owned(), "SSL".to_owned()));
        assert!(parse_protocols("A:TLS").is_err());
        assert!(parse_protocols("A").is_err());
        assert_eq!(parse_address("127.0.0.1:9644"), Ok(("127.0.0.1".to_owned(), 9644)));
        assert!(parse_address(":9644").is_err());
        assert!(parse_address("9644").is_err());
    }
}
