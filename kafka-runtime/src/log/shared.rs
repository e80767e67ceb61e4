//! State shared by the log thread and the handles of the log.

use super::config::LogConfig;
use super::inbox::Inbox;
use super::topics::TopicNames;
use crate::health::HealthCell;
use crate::metrics::Produced;
use crate::producer::InFlight;
use std::sync::Arc;

pub(super) struct Shared {
    pub(super) config: LogConfig,
    pub(super) topics: TopicNames,
    pub(super) inbox: Arc<Inbox>,
    pub(super) in_flight: InFlight,
    pub(super) health: HealthCell,
    pub(super) produced: Produced,
}
