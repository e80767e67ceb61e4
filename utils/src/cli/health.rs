//! `--health`: checks whether the program that runs with this configuration is ready. It serves as the health check of
//! containers, whose image has no curl.

use crate::listener::connectable;
use abi::config::ListenAddress;
use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

/// Time limit of the connect, of the write and of each read.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of the response that are read. A response lists a handful of dependencies, so this is ample.
const MAX_RESPONSE: u64 = 64 << 10;

/// Returns the body of `/readyz` at the admin address, as an error if the status is not 200.
pub(super) fn check(admin: &str) -> Result<String, String> {
    let response = get(admin).map_err(|error| format!("{admin} does not answer: {error}"))?;
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    if head.starts_with("HTTP/1.1 200 ") { Ok(body.to_owned()) } else { Err(format!("not ready: {body}")) }
}

fn get(admin: &str) -> io::Result<String> {
    let listen: ListenAddress = admin.parse().map_err(io::Error::other)?;
    let address =
        listen.resolve()?.into_iter().next().ok_or_else(|| io::Error::other("the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&connectable(address), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut response = String::new();
    stream.take(MAX_RESPONSE).read_to_string(&mut response)?;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    /// Starts a server that sends `response` to one request. Returns its port.
    fn serve_once(response: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
            stream.write_all(response.as_bytes()).unwrap();
        });
        port
    }

    #[test]
    fn p9_only_a_ready_program_is_healthy() {
        let ready = serve_once("HTTP/1.1 200 OK\r\n\r\n{\"ready\":true}");
        assert_eq!(check(&format!("0.0.0.0:{ready}")).unwrap(), "{\"ready\":true}");
        let waiting = serve_once("HTTP/1.1 503 Service Unavailable\r\n\r\nno kafka");
        assert_eq!(check(&format!("127.0.0.1:{waiting}")).unwrap_err(), "not ready: no kafka");
    }

    #[test]
    fn p9_a_program_that_does_not_answer_is_not_healthy() {
        let silent = serve_once("");
        assert!(check(&format!("127.0.0.1:{silent}")).unwrap_err().starts_with("not ready"));
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(check(&closed.to_string()).unwrap_err().contains("does not answer"));
        assert!(check("nonsense").unwrap_err().contains("nonsense does not answer"));
    }
}
