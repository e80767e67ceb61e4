//! `--health`: asks the program that runs with this configuration whether it is ready. For containers, whose health check
//! is a program in the image: there is no curl in it.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _},
    time::Duration,
};

/// Connecting, asking and each part of the answer may take so long.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of an answer that is longer the rest is not read: it names a handful of dependencies.
const LONGEST: u64 = 64 << 10;

/// What `/readyz` of an admin address says, as an error if that is not "ready".
pub(super) fn ask(admin: &str) -> Result<String, String> {
    let answer = get(admin).map_err(|error| format!("{admin} does not answer: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.starts_with("HTTP/1.1 200 ") { Ok(body.to_owned()) } else { Err(format!("not ready: {body}")) }
}

fn get(admin: &str) -> io::Result<String> {
    let address = admin.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("it has no address"))?;
    let mut stream = TcpStream::connect_timeout(&within(address), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Where to connect to something that listens there: who listens on every address is at the loopback's, too.
fn within(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    /// Answers one request with that; gives its port.
    fn answering(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        port
    }

    #[test]
    fn p9_only_a_ready_program_is_healthy() {
        let ready = answering("HTTP/1.1 200 OK\r\n\r\n{\"ready\":true}");
        assert_eq!(ask(&format!("0.0.0.0:{ready}")).unwrap(), "{\"ready\":true}");
        let waiting = answering("HTTP/1.1 503 Service Unavailable\r\n\r\nno kafka");
        assert_eq!(ask(&format!("127.0.0.1:{waiting}")).unwrap_err(), "not ready: no kafka");
    }

    #[test]
    fn p9_a_program_that_does_not_answer_is_not_healthy() {
        let silent = answering("");
        assert!(ask(&format!("127.0.0.1:{silent}")).unwrap_err().starts_with("not ready"));
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(ask(&gone.to_string()).unwrap_err().contains("does not answer"));
        assert!(ask("nonsense").unwrap_err().contains("nonsense does not answer"));
    }

    #[test]
    fn every_address_is_asked_at_the_loopback() {
        for (listens, asked) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")]
        {
            assert_eq!(within(listens.parse().unwrap()).to_string(), asked);
        }
    }
}
