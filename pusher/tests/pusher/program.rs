//! The program, over real Redis.

use crate::gateways::{Behaviour, Gateway};
use crate::{LONG, receiver, request};
use abi::{
    config::{self, Config, Secret},
    v1::push_service_client::PushServiceClient,
};
use cache::{RedisCache, Routes as _};
use std::time::Duration;
use utils::{Shutdown, discovery::Instances, grpc};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_the_program_reads_routes_from_redis_and_delivers() {
    let any = || "127.0.0.1:0".to_owned();
    let url =
        std::env::var("GODWIT_TEST_REDIS").expect("GODWIT_TEST_REDIS is not set: run tests/run, or set it");
    let prefix = format!("test-{}", uuid::Uuid::new_v4().simple());
    let config = Config {
        pusher: config::Pusher { grpc_listen: any(), admin_listen: any(), ..config::Pusher::default() },
        redis: config::Redis { url: Secret::new(url), prefix, ..config::Redis::default() },
        ..Config::default()
    };
    let shutdown = Shutdown::new(Duration::from_secs(20));
    let app = pusher::build(&config).await.unwrap();
    let address = app.address().to_owned();
    app.run(&shutdown).unwrap();
    shutdown.readiness().ready().await;

    let gateway = Gateway::start(Behaviour::Accept).await;
    let cache = RedisCache::new(&config.redis).unwrap();
    cache.connect("app", "alice", "c", &gateway.address, LONG).await.unwrap();
    let channel = grpc::balanced("pusher", Instances::fixed([address]), grpc::Options::default());
    let push = request(1, &[receiver("alice", &[0]), receiver("bob", &[0])]);
    let pushed = PushServiceClient::new(abi::Caller::new(channel)).push(push).await.unwrap();
    assert_eq!(pushed.into_inner().connections, 1);
    assert_eq!(gateway.received().await.receivers, [receiver("alice", &[0])]);

    cache.disconnect("app", "alice", "c").await.unwrap();
    shutdown.drain().begin("test");
    shutdown.run().await;
    assert!(!shutdown.tasks().failed());
}
