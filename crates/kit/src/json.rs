//! The JSON face: unary calls by Connect's conventions, server streams as NDJSON, over the same handlers.

use std::{
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll, ready},
};

use base::{limits::MESSAGE_BYTES_MAX, visible};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Frame};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions,
};
use serde_json::{Value, json};
use tonic::{Status, body::Body};

use crate::{
    error::KitError,
    frames::{FRAME_HEADER_BYTES, frame, take_message},
    http_error::http_error,
    phase::Phase,
};

/// Built on the first JSON call: a service that is asked by gRPC alone never pays for it.
static DESCRIPTORS: OnceLock<Option<DescriptorPool>> = OnceLock::new();

/// The operation behind `/package.Service/Method`.
pub(crate) fn find_method(path: &str) -> Option<MethodDescriptor> {
    let pool =
        DESCRIPTORS.get_or_init(|| DescriptorPool::decode(contracts::FILE_DESCRIPTOR_SET).ok()).as_ref()?;
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    pool.get_service_by_name(service)?.methods().find(|known| known.name() == method)
}

/// Reads a JSON request and makes it the gRPC frame that the handler expects.
pub(crate) async fn read_request<B>(method: &MethodDescriptor, body: B) -> Result<Body, KitError>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if method.is_client_streaming() {
        return Err(KitError::MalformedBody("this operation takes a stream; call it by gRPC".to_owned()));
    }
    let bytes = match Limited::new(body, MESSAGE_BYTES_MAX).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(KitError::MessageTooLarge { limit: MESSAGE_BYTES_MAX });
        }
        Err(error) => return Err(KitError::MalformedBody(error.to_string())),
    };
    let message = parse(method.input(), &bytes)?;
    frame(&message.encode_to_vec()).map(|bytes| Body::new(Full::new(bytes)))
}

fn parse(kind: MessageDescriptor, bytes: &[u8]) -> Result<DynamicMessage, KitError> {
    let malformed =
        |error: serde_json::Error| KitError::MalformedBody(visible(&error.to_string()).into_owned());
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let message =
        DynamicMessage::deserialize_with_options(kind, &mut deserializer, &DeserializeOptions::new())
            .map_err(malformed)?;
    deserializer.end().map_err(malformed)?;
    Ok(message)
}

/// Members that are false, zero or empty are written too: an answer says what it means.
fn to_json(kind: &MessageDescriptor, bytes: &[u8]) -> Result<Value, Status> {
    let message = DynamicMessage::decode(kind.clone(), bytes)
        .map_err(|error| Status::internal(format!("the handler's answer cannot be read: {error}")))?;
    message
        .serialize_with_options(
            serde_json::value::Serializer,
            &SerializeOptions::new().skip_default_fields(false),
        )
        .map_err(|error| Status::internal(format!("the handler's answer is no JSON: {error}")))
}

/// Makes a gRPC answer a JSON one.
pub(crate) async fn write_response(
    service: &'static str,
    phase: Phase,
    method: &MethodDescriptor,
    response: Response<Body>,
) -> Response<Body> {
    let (parts, body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&parts.headers)
        && status.code() != tonic::Code::Ok
    {
        return error_response(service, phase, &status);
    }
    if method.is_server_streaming() {
        let lines = Lines { body, kind: method.output(), buffer: Vec::new(), ended: false, service, phase };
        return answer(StatusCode::OK, "application/x-ndjson", Body::new(lines));
    }
    match unary(method, body).await {
        Ok(value) => answer(StatusCode::OK, "application/json", full(&value)),
        Err(status) => error_response(service, phase, &status),
    }
}

async fn unary(method: &MethodDescriptor, body: Body) -> Result<Value, Status> {
    // A whole message and its header; larger answers do not exist on any contract socket.
    let collected = Limited::new(body, MESSAGE_BYTES_MAX + FRAME_HEADER_BYTES)
        .collect()
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
    check_trailers(collected.trailers())?;
    let mut buffer = collected.to_bytes().to_vec();
    let message =
        take_message(&mut buffer).ok_or_else(|| Status::internal("the handler answered nothing"))?;
    to_json(&method.output(), &message)
}

fn check_trailers(trailers: Option<&HeaderMap>) -> Result<(), Status> {
    match trailers.and_then(Status::from_header_map) {
        Some(status) if status.code() != tonic::Code::Ok => Err(status),
        _ => Ok(()),
    }
}

fn full(value: &Value) -> Body {
    Body::new(Full::new(Bytes::from(value.to_string())))
}

fn answer(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

pub(crate) fn text_response(kind: &'static str, text: String) -> Response<Body> {
    answer(StatusCode::OK, kind, Body::new(Full::new(Bytes::from(text))))
}

pub(crate) fn error_response(service: &str, phase: Phase, status: &Status) -> Response<Body> {
    let (http, body) = http_error(service, phase, status);
    answer(
        StatusCode::from_u16(http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        "application/json",
        full(&body),
    )
}

/// No route, so no body either (ERR-10).
pub(crate) fn not_found() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// A server stream as one JSON value a line; a failure is the last line, `{"error": …}`.
struct Lines {
    body: Body,
    kind: MessageDescriptor,
    buffer: Vec<u8>,
    ended: bool,
    service: &'static str,
    phase: Phase,
}

impl Lines {
    fn line(&mut self) -> Option<Result<Bytes, Status>> {
        let message = take_message(&mut self.buffer)?;
        Some(to_json(&self.kind, &message).map(|value| Bytes::from(format!("{value}\n"))))
    }

    fn last(&mut self, status: &Status) -> Frame<Bytes> {
        self.ended = true;
        let (_, body) = http_error(self.service, self.phase, status);
        Frame::data(Bytes::from(format!("{}\n", json!({ "error": body }))))
    }
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            match self.line() {
                Some(Ok(line)) => return Poll::Ready(Some(Ok(Frame::data(line)))),
                Some(Err(status)) => return Poll::Ready(Some(Ok(self.last(&status)))),
                None => {}
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => self.ended = true,
                Some(Err(status)) => return Poll::Ready(Some(Ok(self.last(&status)))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(frame) => {
                        self.ended = true;
                        if let Err(status) = check_trailers(frame.trailers_ref()) {
                            return Poll::Ready(Some(Ok(self.last(&status))));
                        }
                    }
                },
            }
        }
    }
}
