//! As much HTTP/1.1 as the bed needs: one request per connection, plain TCP, chunked answers.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub accept: &'a str,
    pub content_type: &'a str,
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    pub fn to(method: &'a str, path: &'a str) -> Request<'a> {
        Request {
            method,
            path,
            accept: "*/*",
            content_type: "application/json",
            body: &[],
        }
    }
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }
}

/// Sends one request to `host:port` and reads the whole answer.
pub fn send(address: &str, request: &Request) -> Result<Response> {
    let mut stream = open(address, request)?;
    let (status, headers) = head(&mut stream)?;
    let mut response = Response {
        status,
        headers,
        body: Vec::new(),
    };
    if request.method != "HEAD" {
        read_body(&mut stream, &mut response)?;
    }
    Ok(response)
}

/// Sends one request and hands out the lines of an endless answer (a watch) as they come.
pub fn lines(address: &str, request: &Request) -> Result<Lines> {
    let mut stream = open(address, request)?;
    let (status, headers) = head(&mut stream)?;
    if status != 200 {
        bail!("{} {}: {status}", request.method, request.path);
    }
    let chunked = is_chunked(&headers);
    Ok(Lines {
        stream,
        chunked,
        pending: Vec::new(),
    })
}

#[derive(Debug)]
pub struct Lines {
    stream: BufReader<TcpStream>,
    chunked: bool,
    pending: Vec<u8>,
}

impl Iterator for Lines {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        loop {
            if let Some(end) = self.pending.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return Some(Ok(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            match self.more() {
                Ok(0) => return None,
                Ok(_) => {}
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

impl Lines {
    fn more(&mut self) -> Result<usize> {
        let part = if self.chunked {
            chunk(&mut self.stream)?
        } else {
            let part = self.stream.fill_buf()?.to_vec();
            self.stream.consume(part.len());
            part
        };
        self.pending.extend_from_slice(&part);
        Ok(part.len())
    }
}

const TIMEOUT: Duration = Duration::from_secs(120);

fn open(address: &str, request: &Request) -> Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connect {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let Request {
        method,
        path,
        accept,
        content_type,
        body,
    } = request;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\n\
         Content-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    Ok(BufReader::new(stream))
}

fn head(stream: &mut BufReader<TcpStream>) -> Result<(u16, Vec<(String, String)>)> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.with_context(|| format!("not an HTTP answer: {line:?}"))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok((status, headers));
        };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn is_chunked(headers: &[(String, String)]) -> bool {
    headers.iter().any(|(n, v)| {
        n.eq_ignore_ascii_case("transfer-encoding") && v.eq_ignore_ascii_case("chunked")
    })
}

fn read_body(stream: &mut BufReader<TcpStream>, response: &mut Response) -> Result<()> {
    if is_chunked(&response.headers) {
        loop {
            let part = chunk(stream)?;
            if part.is_empty() {
                return Ok(());
            }
            response.body.extend_from_slice(&part);
        }
    }
    if let Some(length) = response.header("content-length") {
        response.body = vec![0; length.parse().context("content-length")?];
        stream.read_exact(&mut response.body)?;
    } else {
        stream.read_to_end(&mut response.body)?;
    }
    Ok(())
}

/// One chunk; empty at the end.
fn chunk(stream: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(Vec::new());
    }
    let size = line.trim().split(';').next().unwrap_or_default();
    let size = usize::from_str_radix(size, 16).with_context(|| format!("chunk size {line:?}"))?;
    let mut part = vec![0; size];
    stream.read_exact(&mut part)?;
    line.clear();
    stream.read_line(&mut line)?;
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_reads_one_part_at_a_time_and_is_empty_at_the_end() {
        let mut text = &b"3\r\nabc\r\n0\r\n\r\n"[..];
        assert_eq!(chunk(&mut text).unwrap(), b"abc");
        assert!(chunk(&mut text).unwrap().is_empty());
    }
}
