//! What the server answers.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::Response;

use super::{ACCESS_KEY, BUCKET, Fault, Shelf, Upload};

/// A date as good as any.
const MODIFIED: &str = "Thu, 26 Nov 2026 08:00:00 GMT";

fn reply(status: u16) -> axum::http::response::Builder {
    Response::builder().status(StatusCode::from_u16(status).unwrap())
}

fn error(status: u16, code: &str) -> Response {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
    reply(status).body(Body::from(text)).unwrap()
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", &blake3::hash(bytes).to_hex()[..32])
}

fn query(uri: &Uri) -> BTreeMap<String, String> {
    let pairs = uri.query().unwrap_or("").split('&').filter(|p| !p.is_empty());
    let pairs = pairs.map(|p| p.split_once('=').unwrap_or((p, "")));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// `bytes=FROM-TO`
fn range(headers: &HeaderMap) -> Option<(usize, usize)> {
    let text = headers.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
    let (from, to) = text.split_once('-')?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

impl Shelf {
    pub(super) fn answer(
        &mut self,
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        body: &Bytes,
        fault: Option<Fault>,
    ) -> Response {
        if let Some(Fault::Status(status)) = fault {
            return error(status, "InternalError");
        }
        let signed = headers.get(header::AUTHORIZATION).and_then(|h| h.to_str().ok());
        // Whoever shows an account must show ours; the public may read.
        let known = signed.map_or(matches!(*method, Method::GET | Method::HEAD), |s| {
            s.contains(&format!("Credential={ACCESS_KEY}/"))
        });
        if !known {
            return error(403, "InvalidAccessKeyId");
        }
        let Some(name) = uri.path().strip_prefix(&format!("/{BUCKET}/")) else {
            return error(404, "NoSuchBucket");
        };
        let query = query(uri);
        match *method {
            Method::GET | Method::HEAD => self.read(method, name, headers, fault),
            Method::PUT => match query.get("uploadId") {
                Some(id) => self.put_part(id, &query["partNumber"], body),
                None => self.put(name, headers, body),
            },
            Method::POST => match query.get("uploadId") {
                Some(id) => self.complete(id, body),
                None => self.begin(name),
            },
            Method::DELETE => match query.get("uploadId") {
                Some(id) if self.uploads.remove(id).is_some() => {
                    reply(204).body(Body::empty()).unwrap()
                }
                Some(_) => error(404, "NoSuchUpload"),
                None => error(405, "MethodNotAllowed"),
            },
            _ => error(405, "MethodNotAllowed"),
        }
    }

    fn read(
        &mut self,
        method: &Method,
        name: &str,
        headers: &HeaderMap,
        fault: Option<Fault>,
    ) -> Response {
        let Some(bytes) = self.objects.get(name) else { return error(404, "NoSuchKey") };
        let all = bytes.len();
        let asked = range(headers).filter(|_| fault != Some(Fault::IgnoreRange));
        let last = all.saturating_sub(1);
        let (from, to) = asked.unwrap_or((0, last));
        if from >= all || to < from {
            return error(416, "InvalidRange");
        }
        let to = to.min(all - 1);
        let mut part = bytes[from..=to].to_vec();
        let mut answer = reply(if asked.is_some() { 206 } else { 200 })
            .header(header::ETAG, etag(bytes))
            .header(header::LAST_MODIFIED, MODIFIED)
            .header(header::CONTENT_LENGTH, part.len());
        if asked.is_some() {
            answer = answer.header(header::CONTENT_RANGE, format!("bytes {from}-{to}/{all}"));
        }
        if *method == Method::HEAD {
            return answer.body(Body::empty()).unwrap();
        }
        if fault == Some(Fault::Lie) {
            part.iter_mut().for_each(|b| *b ^= 0x55);
        }
        if fault == Some(Fault::Truncate) {
            part.truncate(part.len() / 2);
            let half = Ok::<_, std::io::Error>(Bytes::from(part));
            let cut = Err(std::io::Error::other("cut off"));
            let stream = futures_util::stream::iter([half, cut]);
            return answer.body(Body::from_stream(stream)).unwrap();
        }
        self.sent += part.len() as u64;
        answer.body(Body::from(part)).unwrap()
    }

    fn put(&mut self, name: &str, headers: &HeaderMap, body: &Bytes) -> Response {
        let create = headers.get(header::IF_NONE_MATCH).is_some_and(|h| h == "*");
        if create && self.objects.contains_key(name) {
            return error(412, "PreconditionFailed");
        }
        self.objects.insert(name.to_owned(), body.to_vec());
        reply(200).header(header::ETAG, etag(body)).body(Body::empty()).unwrap()
    }

    fn begin(&mut self, name: &str) -> Response {
        self.next += 1;
        let id = format!("upload-{}", self.next);
        self.uploads.insert(id.clone(), Upload { name: name.to_owned(), ..Upload::default() });
        let text = format!(
            "<InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{name}</Key>\
             <UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        );
        reply(200).body(Body::from(text)).unwrap()
    }

    fn put_part(&mut self, id: &str, number: &str, body: &Bytes) -> Response {
        let Some(upload) = self.uploads.get_mut(id) else { return error(404, "NoSuchUpload") };
        upload.parts.insert(number.parse().unwrap(), body.to_vec());
        reply(200).header(header::ETAG, etag(body)).body(Body::empty()).unwrap()
    }

    fn complete(&mut self, id: &str, body: &Bytes) -> Response {
        let Some(upload) = self.uploads.get(id) else { return error(404, "NoSuchUpload") };
        let text = String::from_utf8_lossy(body).replace("&quot;", "\"");
        let mut all = Vec::new();
        for (i, (number, part)) in upload.parts.iter().enumerate() {
            let whole = part.len() >= 5 * 1024 * 1024 || i + 1 == upload.parts.len();
            let named = text.contains(&format!("<PartNumber>{number}</PartNumber>"));
            if !whole || !named || !text.contains(&etag(part)) {
                return error(400, "InvalidPart");
            }
            all.extend_from_slice(part);
        }
        if text.matches("<PartNumber>").count() != upload.parts.len() {
            return error(400, "InvalidPart");
        }
        let (name, tag) = (upload.name.clone(), etag(&all));
        self.uploads.remove(id);
        self.objects.insert(name.clone(), all);
        let text = format!(
            "<CompleteMultipartUploadResult><Location>x</Location><Bucket>{BUCKET}</Bucket>\
             <Key>{name}</Key><ETag>{tag}</ETag></CompleteMultipartUploadResult>"
        );
        reply(200).body(Body::from(text)).unwrap()
    }
}
