//! The gRPC service: validates requests, calls the store, translates its results.

use crate::{
    error::Error,
    item::{Item, column, number},
    metrics,
    sessions::{Rotation, SessionKey},
    store::{MAX_PAGE_BYTES, Page, PageLimit, Store, View, group_not_found},
};
use abi::{
    ApiError, DEFAULT_PAGE, MAX_PAGE,
    error::ErrorCode,
    ids::{self, Conversation},
    v1::{
        CheckChangeRequest, CheckChangeResponse, CreateSessionRequest, CreateSessionResponse,
        CreateUserRequest, CreateUserResponse, GetHistory, GetMembersRequest, GetSessionRequest,
        GetSigningKeysRequest, GetUserRequest, HeadsPage, HeadsRequest, HistoryPage, HistoryRequest,
        MarkReadRequest, MarkReadResponse, Member, Members, RevokeSessionRequest, RevokeSessionResponse,
        Role, RotateSessionRequest, SaveRequest, SaveResponse, Session, SigningKey, SigningKeys, SyncRequest,
        SyncResponse, User,
        db_service_server::{DbService, DbServiceServer},
    },
};
use std::{sync::Arc, time::Instant};
use tonic::{Request, Response, Status};
use utils::trace::Spans;

/// Most entries in one save call.
const MAX_BATCH: usize = 10_000;
/// Largest gRPC message, in bytes: enough for the largest batch of a consumer.
const MAX_MESSAGE: usize = 128 << 20;
/// Longest hash of a password, in bytes.
const MAX_PASSWORD_HASH: usize = 512;

/// `DbService` over one of the stores. [`crate::embedded`] and the program create it.
#[derive(Clone)]
pub struct Service {
    store: Arc<dyn Store>,
}

/// The service as a gRPC server, for use in this process or on a socket.
pub type Server = DbServiceServer<Service>;

impl Service {
    /// A service over a store.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Whether the disk of the store accepts writes. A refused write is reported for ten seconds.
    ///
    /// # Errors
    /// The reason, in words for an operator.
    pub fn health(&self) -> Result<(), String> {
        self.store.health()
    }

    /// The gRPC server of this service.
    pub fn server(self) -> Server {
        DbServiceServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    async fn save_batch(&self, request: SaveRequest) -> Result<SaveResponse, ApiError> {
        if request.entries.len() > MAX_BATCH {
            return Err(ApiError::invalid(format!("a batch must have at most {MAX_BATCH} entries")));
        }
        if request.entries.is_empty() {
            return Ok(SaveResponse::default());
        }
        let begun = Instant::now();
        let items = request.entries.into_iter().map(Item::new).collect::<Result<Vec<_>, _>>()?;
        let results = self.store.save(items).await?;
        metrics::saved(&results, begun.elapsed());
        Ok(SaveResponse { results })
    }

    async fn history_page(&self, request: HistoryRequest) -> Result<HistoryPage, ApiError> {
        let requested = request.page.unwrap_or_default();
        let view = view(request.app, request.user, &requested.conversation)?;
        let (page, limit) = (page(&requested)?, page_limit(requested.limit, request.max_bytes)?);
        let may_be_empty = is_direct_member(&view);
        match self.store.history(view, page, limit).await? {
            Some(page) => Ok(page),
            None if may_be_empty => Ok(HistoryPage::default()),
            None => Err(outsider()),
        }
    }

    async fn move_read_position(&self, request: MarkReadRequest) -> Result<MarkReadResponse, ApiError> {
        let read = request.read.unwrap_or_default();
        let view = view(request.app, request.user, &read.conversation)?;
        let may_be_empty = is_direct_member(&view);
        match self.store.mark_read(view, column(read.conversation_seq)).await? {
            Some(position) => {
                Ok(MarkReadResponse { read_seq: number(position.read_seq), moved: position.moved })
            }
            None if may_be_empty => Ok(MarkReadResponse::default()),
            None => Err(outsider()),
        }
    }

    async fn members(&self, request: GetMembersRequest) -> Result<Members, ApiError> {
        ids::check_id("app", &request.app)?;
        let conversation = Conversation::parse(&request.conversation)?;
        if let Conversation::Direct(..) = conversation {
            let member =
                |user: &str| Member { user: user.to_owned(), role: Role::Member.into(), visible_from: 1 };
            return Ok(Members { version: 1, members: conversation.direct_members().map(member).collect() });
        }
        let members = self.store.members(request.app, request.conversation).await?;
        members.ok_or_else(group_not_found)
    }

    async fn register_user(&self, user: User) -> Result<(), ApiError> {
        check_user(&user.app, &user.user)?;
        let hash = &user.password_hash;
        if hash.len() > MAX_PASSWORD_HASH || !hash.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ApiError::invalid(format!(
                "password_hash must be at most {MAX_PASSWORD_HASH} printable ASCII characters"
            )));
        }
        if self.store.create_user(user.app, user.user, user.password_hash).await? {
            return Ok(());
        }
        Err(ApiError::new(ErrorCode::AlreadyExists, "this user id is taken"))
    }

    async fn open_session(&self, request: CreateSessionRequest) -> Result<Vec<String>, ApiError> {
        let session = request.session.unwrap_or_default();
        ids::check_id("session", &session.session)?;
        check_user(&session.app, &session.user)?;
        ids::check_id("device", &session.device)?;
        check_hash("refresh_hash", &request.refresh_hash)?;
        Ok(self.store.create_session(session, request.refresh_hash.to_vec()).await?)
    }

    async fn rotate(&self, request: RotateSessionRequest) -> Result<Session, ApiError> {
        let key = session_key(request.app, request.user, request.session)?;
        check_hash("refresh_hash", &request.refresh_hash)?;
        check_hash("next_refresh_hash", &request.next_refresh_hash)?;
        let rotation = Rotation {
            presented: request.refresh_hash.to_vec(),
            next: request.next_refresh_hash.to_vec(),
            number: (request.number > 0).then_some(request.number.into()),
        };
        let rotated = self.store.rotate_session(key, rotation).await?;
        rotated.ok_or_else(|| {
            ApiError::new(
                ErrorCode::Unauthenticated,
                "the refresh token is not valid: it was replaced, or the device was logged out; \
                 use the newest token of the device, or log in again",
            )
        })
    }
}

#[tonic::async_trait]
impl DbService for Service {
    async fn save(&self, request: Request<SaveRequest>) -> Result<Response<SaveResponse>, Status> {
        let spans = Spans::extract("db-service", "save", request.metadata());
        let saved = self.save_batch(request.into_inner()).await?;
        spans.finish();
        Ok(Response::new(saved))
    }

    async fn sync(&self, _: Request<SyncRequest>) -> Result<Response<SyncResponse>, Status> {
        self.store.sync().await?;
        Ok(Response::new(SyncResponse {}))
    }

    async fn check_change(
        &self,
        request: Request<CheckChangeRequest>,
    ) -> Result<Response<CheckChangeResponse>, Status> {
        let item = Item::new(request.into_inner().entry.unwrap_or_default())?;
        if item.change.is_none() {
            return Err(ApiError::invalid("the entry is not a group change").into());
        }
        let stored = self.store.check_change(item).await?;
        Ok(Response::new(CheckChangeResponse { stored }))
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<HistoryPage>, Status> {
        Ok(Response::new(self.history_page(request.into_inner()).await?))
    }

    async fn heads(&self, request: Request<HeadsRequest>) -> Result<Response<HeadsPage>, Status> {
        let request = request.into_inner();
        let page = request.page.unwrap_or_default();
        check_user(&request.app, &request.user)?;
        if page.after.bytes().any(|byte| byte == 0) {
            return Err(ApiError::invalid("after must be a conversation id").into());
        }
        let limit = limit(page.limit)?;
        let heads = self.store.heads(request.app, request.user, page.after, limit).await;
        Ok(Response::new(heads?))
    }

    async fn get_members(&self, request: Request<GetMembersRequest>) -> Result<Response<Members>, Status> {
        Ok(Response::new(self.members(request.into_inner()).await?))
    }

    async fn mark_read(
        &self,
        request: Request<MarkReadRequest>,
    ) -> Result<Response<MarkReadResponse>, Status> {
        Ok(Response::new(self.move_read_position(request.into_inner()).await?))
    }

    async fn create_user(
        &self,
        request: Request<CreateUserRequest>,
    ) -> Result<Response<CreateUserResponse>, Status> {
        self.register_user(request.into_inner().user.unwrap_or_default()).await?;
        Ok(Response::new(CreateUserResponse {}))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<User>, Status> {
        let GetUserRequest { app, user } = request.into_inner();
        check_user(&app, &user)?;
        let hash = self.store.password_hash(app.clone(), user.clone()).await?;
        let password_hash = hash.ok_or_else(|| ApiError::not_found("there is no such user"))?;
        Ok(Response::new(User { app, user, password_hash }))
    }

    async fn create_session(
        &self,
        request: Request<CreateSessionRequest>,
    ) -> Result<Response<CreateSessionResponse>, Status> {
        let revoked = self.open_session(request.into_inner()).await?;
        Ok(Response::new(CreateSessionResponse { revoked }))
    }

    async fn rotate_session(
        &self,
        request: Request<RotateSessionRequest>,
    ) -> Result<Response<Session>, Status> {
        Ok(Response::new(self.rotate(request.into_inner()).await?))
    }

    async fn get_session(&self, request: Request<GetSessionRequest>) -> Result<Response<Session>, Status> {
        let GetSessionRequest { app, user, session } = request.into_inner();
        let session = self.store.session(session_key(app, user, session)?).await?;
        Ok(Response::new(session.ok_or_else(|| ApiError::not_found("there is no such session"))?))
    }

    async fn revoke_session(
        &self,
        request: Request<RevokeSessionRequest>,
    ) -> Result<Response<RevokeSessionResponse>, Status> {
        let RevokeSessionRequest { app, user, session } = request.into_inner();
        self.store.revoke_session(session_key(app, user, session)?).await?;
        Ok(Response::new(RevokeSessionResponse {}))
    }

    async fn get_signing_keys(
        &self,
        _: Request<GetSigningKeysRequest>,
    ) -> Result<Response<SigningKeys>, Status> {
        let candidate = SigningKey {
            id: ids::hex(&rand::random::<[u8; 8]>()),
            secret: Vec::from(rand::random::<[u8; 32]>()).into(),
        };
        let keys = self.store.signing_keys(candidate).await?;
        Ok(Response::new(SigningKeys { keys }))
    }
}

/// The error for a user who is not a member. It must not depend on whether the conversation exists.
fn outsider() -> ApiError {
    ApiError::forbidden("you are not a member of this conversation")
}

fn view(app: String, user: String, conversation: &str) -> Result<View, ApiError> {
    check_user(&app, &user)?;
    Ok(View { app, user, conversation: Conversation::parse(conversation)?.to_string() })
}

fn is_direct_member(view: &View) -> bool {
    Conversation::parse(&view.conversation)
        .ok()
        .and_then(|conversation| conversation.has_direct_member(&view.user))
        .unwrap_or(false)
}

fn check_user(app: &str, user: &str) -> Result<(), ApiError> {
    ids::check_id("app", app)?;
    ids::check_id("user", user)
}

fn session_key(app: String, user: String, session: String) -> Result<SessionKey, ApiError> {
    check_user(&app, &user)?;
    ids::check_id("session", &session)?;
    Ok(SessionKey { app, user, session })
}

fn check_hash(name: &str, hash: &[u8]) -> Result<(), ApiError> {
    if hash.len() == 32 { Ok(()) } else { Err(ApiError::invalid(format!("{name} must be 32 bytes"))) }
}

fn page(requested: &GetHistory) -> Result<Page, ApiError> {
    match (requested.after, requested.before, requested.newest) {
        (0, 0, true) => Ok(Page::Before(i64::MAX)),
        (after, 0, false) => Ok(Page::After(column(after))),
        (0, before, _) => Ok(Page::Before(column(before))),
        _ => Err(ApiError::invalid("set at most one of after, before and newest")),
    }
}

fn limit(requested: i32) -> Result<usize, ApiError> {
    let limit = if requested == 0 { DEFAULT_PAGE } else { requested };
    usize::try_from(limit)
        .ok()
        .filter(|_| limit <= MAX_PAGE)
        .ok_or_else(|| ApiError::invalid(format!("limit must be 1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}")))
}

fn page_limit(entries: i32, max_bytes: u64) -> Result<PageLimit, ApiError> {
    let bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    let bytes = if bytes == 0 { MAX_PAGE_BYTES } else { bytes.min(MAX_PAGE_BYTES) };
    Ok(PageLimit { entries: limit(entries)?, bytes })
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        ApiError::from(error).into()
    }
}
