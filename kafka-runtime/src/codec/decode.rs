//! Handlers of decoded records.

use super::Codec;
use crate::consumer::HandlerError;
use crate::record::{Delivered, Message, Record};
use bytes::Bytes;
use futures_util::future::{Either, Ready, ready};
use std::marker::PhantomData;
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// A record with its decoded payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded<T> {
    /// The decoded payload.
    pub value: T,
    /// The record itself.
    pub record: Record,
    /// 1 at first, incremented each time the record is handed over again after a failure.
    pub attempt: u32,
}

impl<T> Delivered for Decoded<T> {
    fn topic(&self) -> &str {
        &self.record.topic
    }

    fn partition(&self) -> i32 {
        self.record.partition
    }

    fn first_offset(&self) -> i64 {
        self.record.offset
    }

    fn count(&self) -> usize {
        1
    }

    fn attempt(&self) -> u32 {
        self.attempt
    }

    fn headers(&self) -> &[(String, Bytes)] {
        &self.record.headers
    }
}

/// Turns a handler of [`Decoded`] into a handler of [`Message`]. Rejects records that cannot be decoded.
#[derive(Debug)]
pub struct DecodeLayer<C, T> {
    codec: C,
    of: PhantomData<fn() -> T>,
}

impl<C: Codec<T>, T> DecodeLayer<C, T> {
    /// Decodes with `codec`.
    pub fn new(codec: C) -> Self {
        Self { codec, of: PhantomData }
    }
}

impl<C: Clone, T> Clone for DecodeLayer<C, T> {
    fn clone(&self) -> Self {
        Self { codec: self.codec.clone(), of: PhantomData }
    }
}

impl<C: Codec<T>, T, S> Layer<S> for DecodeLayer<C, T> {
    type Service = Decode<C, T, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Decode { inner, layer: self.clone() }
    }
}

/// See [`DecodeLayer`].
#[derive(Debug)]
pub struct Decode<C, T, S> {
    inner: S,
    layer: DecodeLayer<C, T>,
}

impl<C: Clone, T, S: Clone> Clone for Decode<C, T, S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<C, T, S> Service<Message> for Decode<C, T, S>
where
    C: Codec<T>,
    S: Service<Decoded<T>, Error = HandlerError>,
{
    type Response = S::Response;
    type Error = HandlerError;
    type Future = Either<S::Future, Ready<Result<S::Response, HandlerError>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, Message { record, attempt }: Message) -> Self::Future {
        match self.layer.codec.decode(&record.payload) {
            Ok(value) => Either::Left(self.inner.call(Decoded { value, record, attempt })),
            Err(error) => Either::Right(ready(Err(HandlerError::reject(error)))),
        }
    }
}
