//! Operator access, logs and traces.

use super::{
    Secret,
    bounds::{between, one_of, plain_http_or_empty, visible_ascii_or_empty},
};

section! {
    /// Operator access to the admin ports. Health and metrics need no token.
    Operator {
        /// Token of operators, the same for all programs. It gives access to the dead letters. Empty: no access, except that
        /// the one-process program creates a token and stores it in its data folder as `operator-token`.
        #[bounds(visible_ascii_or_empty())]
        token: Secret = Secret::default(),
    }
}

section! {
    /// Logs.
    Log {
        /// Level (`error`, `warn`, `info`, `debug` or `trace`), or a filter such as `info,ws_gateway=debug`.
        level: String = "info".into(),
        /// Format of log lines.
        #[bounds(one_of(["text", "json"]))]
        format: String = "text".into(),
    }
}

section! {
    /// Traces of single messages through the services.
    Trace {
        /// OpenTelemetry collector (OTLP over gRPC). Empty: no traces.
        #[bounds(plain_http_or_empty())]
        endpoint: String = String::new(),
        /// Share of messages that are traced: 0 for none, 1 for all. The gateway decides; the other services follow.
        #[bounds(between(0.0, 1.0))]
        sample: f64 = 0.01,
    }
}
