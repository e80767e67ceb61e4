//! The gRPC service: validates requests, calls the store, translates its results.

mod accounts;
mod reading;
mod saving;
mod user_state;

use crate::{
    error::Error,
    item::Item,
    store::{Conversations, Directory, Users, View},
};
use abi::{
    ApiError, DEFAULT_PAGE, MAX_PAGE,
    ids::{self, Conversation},
    v1::{
        Blocks, ChangeBlockRequest, ChangeBlockResponse, ChangeSettingsRequest, CheckChangeRequest,
        CheckChangeResponse, ConversationSettings, CreateSessionRequest, CreateSessionResponse,
        CreateUserRequest, CreateUserResponse, EntriesPage, FindBlockersRequest, FindBlockersResponse,
        FindStartOffsetRequest, FindStartOffsetResponse, GetBlocksRequest, GetMembersRequest,
        GetProfilesRequest, GetSessionRequest, GetSigningKeysRequest, GetUserRequest, HeadsOfRequest,
        HeadsPage, HeadsRequest, HistoryRequest, MarkReadRequest, MarkReadResponse, Members, Profiles,
        Readers, ReadersRequest, ReplaceProfileRequest, ReplaceProfileResponse, RevokeSessionRequest,
        RevokeSessionResponse, RotateSessionRequest, SaveRequest, SaveResponse, Session, SigningKey,
        SigningKeys, SyncRequest, SyncResponse, User,
        db_service_server::{DbService, DbServiceServer},
    },
};
use std::{collections::HashSet, sync::Arc};
use tonic::{Request, Response, Status};
use utils::trace::Spans;

/// Largest gRPC message, in bytes: enough for the largest batch of a consumer.
const MAX_MESSAGE: usize = 128 << 20;
/// Most users named in a change whose accounts are looked up. Larger than any group: the rules refuse a change that names more.
const MAX_LOOK_UP: usize = 10_000;

/// `DbService` over one of the stores. [`crate::embedded`] and the program create it.
#[derive(Clone)]
pub struct Service {
    conversations: Arc<dyn Conversations>,
    users: Arc<dyn Users>,
    directory: Arc<dyn Directory>,
}

/// The service as a gRPC server, for use in this process or on a socket.
pub type Server = DbServiceServer<Service>;

impl Service {
    /// A service over a store.
    pub(crate) fn new<S: Conversations + Users + Directory>(store: Arc<S>) -> Self {
        let (conversations, users, directory) = (Arc::clone(&store) as _, Arc::clone(&store) as _, store);
        Self { conversations, users, directory }
    }

    /// Whether the disk of the store accepts writes. A refused write is reported for ten seconds.
    ///
    /// # Errors
    /// The reason, in words for an operator.
    pub fn health(&self) -> Result<(), String> {
        self.conversations.health()
    }

    /// The gRPC server of this service.
    pub fn server(self) -> Server {
        DbServiceServer::new(self)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
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

    async fn find_start_offset(
        &self,
        request: Request<FindStartOffsetRequest>,
    ) -> Result<Response<FindStartOffsetResponse>, Status> {
        let offset = self.start_offset(request.into_inner()).await?;
        Ok(Response::new(FindStartOffsetResponse { offset }))
    }

    async fn sync(&self, _: Request<SyncRequest>) -> Result<Response<SyncResponse>, Status> {
        self.conversations.sync().await?;
        Ok(Response::new(SyncResponse {}))
    }

    async fn check_change(
        &self,
        request: Request<CheckChangeRequest>,
    ) -> Result<Response<CheckChangeResponse>, Status> {
        let CheckChangeRequest { app, entry } = request.into_inner();
        ids::check_id("app", &app)?;
        let item = Item::new(&app, entry)?;
        // Looked up before the transaction that decides: accounts and conversations may be in different databases.
        let named = item.change.as_ref().map_or_else(Vec::new, |change| change.named_users(MAX_LOOK_UP));
        let accounts = match named.is_empty() {
            true => HashSet::new(),
            false => self.users.existing(app, named).await?,
        };
        let stored = self.conversations.check_change(item, accounts).await?;
        Ok(Response::new(CheckChangeResponse { stored }))
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<EntriesPage>, Status> {
        Ok(Response::new(self.history_page(request.into_inner()).await?))
    }

    async fn heads(&self, request: Request<HeadsRequest>) -> Result<Response<HeadsPage>, Status> {
        Ok(Response::new(self.heads_page(request.into_inner()).await?))
    }

    async fn heads_of(&self, request: Request<HeadsOfRequest>) -> Result<Response<HeadsPage>, Status> {
        Ok(Response::new(self.named_heads(request.into_inner()).await?))
    }

    async fn get_members(&self, request: Request<GetMembersRequest>) -> Result<Response<Members>, Status> {
        Ok(Response::new(self.members(request.into_inner()).await?))
    }

    async fn readers(&self, request: Request<ReadersRequest>) -> Result<Response<Readers>, Status> {
        Ok(Response::new(self.readers_page(request.into_inner()).await?))
    }

    async fn mark_read(
        &self,
        request: Request<MarkReadRequest>,
    ) -> Result<Response<MarkReadResponse>, Status> {
        Ok(Response::new(self.move_read_positions(request.into_inner()).await?))
    }

    async fn change_settings(
        &self,
        request: Request<ChangeSettingsRequest>,
    ) -> Result<Response<ConversationSettings>, Status> {
        Ok(Response::new(self.set_settings(request.into_inner()).await?))
    }

    async fn change_block(
        &self,
        request: Request<ChangeBlockRequest>,
    ) -> Result<Response<ChangeBlockResponse>, Status> {
        self.set_block(request.into_inner()).await?;
        Ok(Response::new(ChangeBlockResponse {}))
    }

    async fn get_blocks(&self, request: Request<GetBlocksRequest>) -> Result<Response<Blocks>, Status> {
        Ok(Response::new(self.blocks_page(request.into_inner()).await?))
    }

    async fn find_blockers(
        &self,
        request: Request<FindBlockersRequest>,
    ) -> Result<Response<FindBlockersResponse>, Status> {
        let by = self.blockers(request.into_inner()).await?;
        Ok(Response::new(FindBlockersResponse { by }))
    }

    async fn replace_profile(
        &self,
        request: Request<ReplaceProfileRequest>,
    ) -> Result<Response<ReplaceProfileResponse>, Status> {
        self.set_profile(request.into_inner()).await?;
        Ok(Response::new(ReplaceProfileResponse {}))
    }

    async fn get_profiles(&self, request: Request<GetProfilesRequest>) -> Result<Response<Profiles>, Status> {
        let profiles = self.profiles_of(request.into_inner()).await?;
        Ok(Response::new(Profiles { profiles }))
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
        let hash = self.users.password_hash(app.clone(), user.clone()).await?;
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
        let GetSessionRequest { app, user, session, with_generation } = request.into_inner();
        let session = self.users.session(accounts::session_key(app, user, session)?).await?;
        let mut session = session.ok_or_else(|| ApiError::not_found("there is no such session"))?;
        if with_generation {
            (session.generation, session.generation_before) = self.directory.generation().await?;
        }
        Ok(Response::new(session))
    }

    async fn revoke_session(
        &self,
        request: Request<RevokeSessionRequest>,
    ) -> Result<Response<RevokeSessionResponse>, Status> {
        let RevokeSessionRequest { app, user, session } = request.into_inner();
        self.users.revoke_session(accounts::session_key(app, user, session)?).await?;
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
        let keys = self.directory.signing_keys(candidate).await?;
        Ok(Response::new(SigningKeys { keys }))
    }
}

fn view(app: String, user: String, conversation: &str) -> Result<View, ApiError> {
    check_user(&app, &user)?;
    Ok(View { app, user, conversation: Conversation::parse(conversation)?.to_string() })
}

fn check_user(app: &str, user: &str) -> Result<(), ApiError> {
    ids::check_id("app", app)?;
    ids::check_id("user", user)
}

fn limit(requested: i32) -> Result<usize, ApiError> {
    let limit = if requested == 0 { DEFAULT_PAGE } else { requested };
    usize::try_from(limit)
        .ok()
        .filter(|_| limit <= MAX_PAGE)
        .ok_or_else(|| ApiError::invalid(format!("limit must be 1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}")))
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        ApiError::from(error).into()
    }
}
