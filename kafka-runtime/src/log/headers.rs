//! The format of headers in the embedded log. One blob holds, for each name and each value, its length (u32,
//! little endian) and its bytes.

use crate::record::Headers;
use bytes::Bytes;

/// Encodes headers; `None` if there are none.
pub fn encode(headers: &Headers) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut blob = Vec::new();
    for (name, value) in headers {
        for part in [name.as_bytes(), value] {
            // A record is at most a few MiB, far below u32::MAX.
            blob.extend_from_slice(&(part.len() as u32).to_le_bytes());
            blob.extend_from_slice(part);
        }
    }
    Some(blob)
}

/// Decodes headers; `None` if the blob is damaged.
pub fn decode(blob: &[u8]) -> Option<Headers> {
    let mut rest = blob;
    let mut headers = Vec::new();
    while !rest.is_empty() {
        let name = std::str::from_utf8(part(&mut rest)?).ok()?.to_owned();
        headers.push((name, Bytes::copy_from_slice(part(&mut rest)?)));
    }
    Some(headers)
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (part, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = after;
    Some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_a_round_trip() {
        let headers: Headers = vec![
            ("a".into(), Bytes::from_static(b"1")),
            (String::new(), Bytes::new()),
            ("ü".into(), vec![0; 300].into()),
        ];
        let blob = encode(&headers).expect("there are headers");
        assert_eq!(decode(&blob), Some(headers));
        assert_eq!(encode(&vec![]), None);
    }

    #[test]
    fn a_damaged_blob_is_refused() {
        let blob = encode(&vec![("name".into(), Bytes::from_static(b"value"))]).expect("there are headers");
        for length in 1..blob.len() {
            assert!(decode(&blob[..length]).is_none(), "cut to {length}");
        }
        assert!(decode(&[255, 255, 255, 255, 0]).is_none());
    }
}
