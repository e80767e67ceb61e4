//! Operations of the HTTP API: each has its handler and its documentation in one place. The router and the OpenAPI document are both
//! made from the list of operations, so a route without documentation can't exist.

use crate::openapi::Schemas;
use abi::error::ErrorCode;
use axum::{
    handler::Handler,
    http::Method,
    routing::{MethodFilter, MethodRouter},
};
use schemars::JsonSchema;
use serde_json::{Value, json};

/// A group of operations in the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    /// Registering, logging in and out.
    Accounts,
    /// Entries and heads, and what a user does with a conversation.
    Conversations,
    /// Groups and their members.
    Groups,
    /// What belongs to a user.
    Users,
    /// The server itself.
    Server,
}

impl Tag {
    /// All tags, in the order of the documentation.
    pub(crate) const ALL: [Self; 5] =
        [Self::Accounts, Self::Conversations, Self::Groups, Self::Users, Self::Server];

    /// The name, and a sentence about the operations.
    pub(crate) fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::Accounts => ("accounts", "Register, log in and out, and exchange tokens."),
            Self::Conversations => {
                ("conversations", "Send and read entries; read heads; mark as read; signals.")
            }
            Self::Groups => ("groups", "Create and change groups. Each change is an entry of the group."),
            Self::Users => ("users", "What has changed for the caller; blocks, profiles and presence."),
            Self::Server => ("server", "Health and documentation of the server, and the WebSocket."),
        }
    }
}

/// How a request or an answer describes its body.
pub(crate) type MakeSchema = Box<dyn Fn(&mut Schemas) -> Value + Send + Sync>;

/// An answer that is not an error.
pub(crate) struct Success {
    pub(crate) status: u16,
    pub(crate) description: &'static str,
    /// Media type and schema. `None`: the answer has no body.
    pub(crate) body: Option<(&'static str, MakeSchema)>,
}

/// The documentation of an operation.
pub(crate) struct Documentation {
    /// The method.
    pub(crate) method: Method,
    /// The path, with parameters in braces.
    pub(crate) path: &'static str,
    /// The unique name of the operation.
    pub(crate) id: &'static str,
    /// Whether the request needs an access token.
    pub(crate) is_authenticated: bool,
    pub(crate) tag: Tag,
    pub(crate) summary: &'static str,
    pub(crate) description: &'static str,
    pub(crate) query: Option<MakeSchema>,
    pub(crate) body: Option<MakeSchema>,
    pub(crate) successes: Vec<Success>,
    pub(crate) errors: Vec<ErrorCode>,
}

/// An operation: its handler and its documentation.
pub(crate) struct Operation<S> {
    pub(crate) documentation: Documentation,
    pub(crate) handler: MethodRouter<S>,
}

/// An operation that needs an access token, and that [`handler`](Operation::handler) answers.
///
/// # Panics
/// The method is not one that a router knows.
pub(crate) fn operation<H, T, S>(
    method: Method,
    path: &'static str,
    id: &'static str,
    handler: H,
) -> Operation<S>
where
    H: Handler<T, S>,
    T: 'static,
    S: Clone + Send + Sync + 'static,
{
    let filter = MethodFilter::try_from(method.clone()).expect("the methods of the API are standard ones");
    Operation {
        handler: MethodRouter::new().on(filter, handler),
        documentation: Documentation {
            method,
            path,
            id,
            is_authenticated: true,
            tag: Tag::Server,
            summary: "",
            description: "",
            query: None,
            body: None,
            successes: Vec::new(),
            errors: Vec::new(),
        },
    }
}

impl<S> Operation<S> {
    /// The group, and a sentence that says what the operation does.
    pub(crate) fn about(mut self, tag: Tag, summary: &'static str) -> Self {
        (self.documentation.tag, self.documentation.summary) = (tag, summary);
        self
    }

    /// More about the operation, in Markdown.
    pub(crate) fn describe(mut self, description: &'static str) -> Self {
        self.documentation.description = description;
        self
    }

    /// The operation needs no access token.
    pub(crate) fn public(mut self) -> Self {
        self.documentation.is_authenticated = false;
        self
    }

    /// The parameters after `?` are the members of `T`.
    pub(crate) fn query<T: JsonSchema>(mut self) -> Self {
        self.documentation.query = Some(Box::new(|schemas| schemas.inline::<T>()));
        self
    }

    /// The body of the request is a `T`.
    pub(crate) fn body<T: JsonSchema>(mut self) -> Self {
        self.documentation.body = Some(Box::new(|schemas| schemas.of::<T>()));
        self
    }

    /// The body of the request is a message of the contract. The members `absent` are not in the body: the path names them, or
    /// the server sets them.
    pub(crate) fn message_body(
        mut self,
        message: &'static str,
        absent: &'static [&'static str],
        required: &'static [&'static str],
    ) -> Self {
        self.documentation.body =
            Some(Box::new(move |schemas| schemas.part_of_message(message, absent, required)));
        self
    }

    /// The answer is a `T` in JSON.
    pub(crate) fn answer<T: JsonSchema>(self, status: u16, description: &'static str) -> Self {
        self.success(status, description, Some(("application/json", Box::new(|schemas| schemas.of::<T>()))))
    }

    /// The answer is a message of the contract in proto3 JSON.
    pub(crate) fn message(self, status: u16, message: &'static str, description: &'static str) -> Self {
        let schema: MakeSchema = Box::new(move |_| Schemas::message(message));
        self.success(status, description, Some(("application/json", schema)))
    }

    /// The answer is a text of a media type.
    pub(crate) fn text(self, media_type: &'static str, description: &'static str) -> Self {
        let schema: MakeSchema = Box::new(|_| json!({ "type": "string" }));
        self.success(200, description, Some((media_type, schema)))
    }

    /// The answer is any JSON object.
    pub(crate) fn object(self, description: &'static str) -> Self {
        let schema: MakeSchema = Box::new(|_| json!({ "type": "object" }));
        self.success(200, description, Some(("application/json", schema)))
    }

    /// The answer has no body.
    pub(crate) fn no_body(self, status: u16, description: &'static str) -> Self {
        self.success(status, description, None)
    }

    fn success(
        mut self,
        status: u16,
        description: &'static str,
        body: Option<(&'static str, MakeSchema)>,
    ) -> Self {
        self.documentation.successes.push(Success { status, description, body });
        self
    }

    /// The errors of this operation, besides those that follow from its parameters, its body and its authentication.
    pub(crate) fn errors(mut self, errors: &[ErrorCode]) -> Self {
        self.documentation.errors.extend(errors);
        self
    }
}
