//! Service discovery through Consul, while instances and Consul itself start and stop.

use crate::{
    distributed::OWN_SERVERS,
    load::{Load, report},
};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{io::Write as _, time::Duration};
use tests::{
    eventually,
    http::{self, Answer},
    system::{DISTRIBUTED_PROGRAMS, Distributed, Instance, OwnServers, Servers, unique},
    world::World,
};
use tokio::time::{Instant, sleep};

/// The number of db-service instances that a caller knows.
const KNOWN_INSTANCES: &str = "godwit_utils_known_instances{service=\"db-service\"}";
/// Programs that call db-service.
const CALLERS: [&str; 2] = ["ws-gateway", "consumer"];

pub(crate) async fn p9_all_callers_soon_see_instances_start_and_stop() -> Result<()> {
    let mut system = Distributed::start(&[]).await?;
    known_to_all(&mut system, 2).await?;
    let print = |event: &str, took: Duration| {
        // A closed stderr must not fail the test.
        let _ = writeln!(std::io::stderr(), "{event}, seen by all callers: {} ms", took.as_millis());
    };
    let mut started = Vec::new();
    for _ in 0..3 {
        let another = system.start_another("db-service").await?;
        let took = known_to_all(&mut system, 3 + started.len()).await?;
        print("an instance is ready", took);
        ensure!(took < Duration::from_secs(1), "seen after {took:?}");
        started.push(another);
    }
    let terminated = &mut started[0];
    terminated.process().signal("TERM")?;
    let took = known_to_all(&mut system, 4).await?;
    print("SIGTERM", took);
    ensure!(took < Duration::from_secs(1), "seen after {took:?}");
    ensure!(terminated.process().ended().await?.success(), "{}", terminated.process().output().join("\n"));

    started[1].kill();
    let took = known_to_all(&mut system, 3).await?;
    print("SIGKILL", took);
    ensure!(took < Duration::from_secs(5), "seen after {took:?}");

    let paused = &mut started[2];
    paused.process().signal("STOP")?;
    let took = known_to_all(&mut system, 2).await?;
    print("SIGSTOP", took);
    ensure!(took < Duration::from_secs(8), "seen after {took:?}");
    paused.process().signal("CONT")?;
    print("SIGCONT", known_to_all(&mut system, 3).await?);
    Ok(())
}

/// Waits until all callers know `count` instances of db-service, and returns the time that took.
async fn known_to_all(system: &mut Distributed, count: usize) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let mut known = Vec::new();
        for program in CALLERS {
            for caller in system.instances(program) {
                known.push(caller.metric(KNOWN_INSTANCES).await.unwrap_or(0.0) as usize);
            }
        }
        if known.iter().all(|known| *known == count) {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < Duration::from_secs(30), "they know {known:?} instances, not {count}");
        sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn p9_calls_continue_while_consul_is_down_and_after_it_lost_its_data() -> Result<()> {
    let _one_at_a_time = OWN_SERVERS.lock().await;
    let servers = OwnServers::start()?;
    let mut system = Distributed::start_on(servers.addresses(), &[]).await?;
    let world = World::at_addresses_of(&system);
    let load = Load::start(&world).await?;
    known_to_all(&mut system, 2).await?;
    servers.run(&["kill", "consul"])?;
    // `GODWIT_TEST_AWAY=300` keeps Consul down for five minutes.
    let outage = std::env::var("GODWIT_TEST_AWAY").map_or(Ok(5), |seconds| seconds.parse())?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(outage) {
        load.progresses().await.context("while consul is down")?;
        sleep(Duration::from_secs(1)).await;
    }
    known_to_all(&mut system, 2).await.context("while consul is down")?;
    // While Consul is down, callers do not learn about a killed instance. Their calls go to the other one.
    let killed = system.instances("db-service").next().context("there are two of each")?;
    killed.kill();
    load.progresses().await.context("with one instance killed and consul down")?;
    known_to_all(&mut system, 2).await.context("callers keep the known instances")?;

    for command in ["wipe", "start"] {
        servers.run(&[command, "consul"])?;
    }
    let begun = Instant::now();
    let agent = servers.addresses().consul;
    let prefix = system.prefix.clone();
    for program in DISTRIBUTED_PROGRAMS {
        let expected = if program == "db-service" { 1 } else { 2 };
        eventually(&format!("{program} is registered again"), async || {
            let found = healthy(&agent, "", &format!("{prefix}-{program}")).await?;
            ensure!(found.len() == expected, "{found:?}");
            Ok(())
        })
        .await?;
    }
    let registered = begun.elapsed();
    known_to_all(&mut system, 1).await.context("the killed instance is forgotten")?;
    let forgotten = begun.elapsed();
    system.instances("db-service").next().context("there are two of each")?.start_again().await?;
    let took = known_to_all(&mut system, 2).await?;
    ensure!(took < Duration::from_secs(1), "callers saw a new instance only after {took:?}");
    load.progresses().await.context("with consul back")?;
    let acknowledged = load.finish(&world).await?;
    report(&format!("consul down for {outage} s, back without data"), acknowledged);
    let _ = writeln!(
        std::io::stderr(),
        "after consul was back: all registered after {registered:.1?}, the killed one forgotten after {forgotten:.1?}"
    );
    Ok(())
}

pub(crate) async fn p8_a_consul_with_access_control_requires_a_token() -> Result<()> {
    let _one_at_a_time = OWN_SERVERS.lock().await;
    let manager = uuid::Uuid::new_v4().to_string();
    let servers = OwnServers::start_consul_with_access_control(&manager)?;
    let agent = servers.addresses().consul;
    // The permissions that docs/discovery.md lists.
    let prefix = format!("godwit-test-{}", unique());
    let rules = format!(
        "service_prefix \"{prefix}-\" {{ policy = \"write\" }}\nnode_prefix \"\" {{ policy = \"read\" }}"
    );
    consul(&agent, &manager, "PUT", "/v1/acl/policy", Some(json!({ "Name": "godwit", "Rules": rules })))
        .await?;
    let policies = json!({ "Policies": [{ "Name": "godwit" }] });
    let created = consul(&agent, &manager, "PUT", "/v1/acl/token", Some(policies)).await?.json()?;
    let token = created["SecretID"].as_str().context("no SecretID")?.to_owned();

    let redis = Servers::from_environment()?.redis;
    let settings = |token: &str| {
        vec![
            "discovery.kind=consul".to_owned(),
            "discovery.zone=north".to_owned(),
            format!("discovery.consul={agent}"),
            format!("discovery.prefix={prefix}"),
            format!("discovery.consul_token={token}"),
            format!("redis.url={redis}"),
            // No Kafka is needed: the consumer only has to discover the pusher.
            "kafka.brokers=127.0.0.1:1".to_owned(),
        ]
    };
    let mut unauthorized = Instance::start("pusher", settings("wrong"), "127.0.0.1:0").await?;
    eventually("it logs the refused registration", async || {
        let output = unauthorized.process().output().join("\n");
        ensure!(output.contains("cannot register") && output.contains("403"), "{output}");
        Ok(())
    })
    .await?;
    let caller = Instance::start_unready("consumer", settings(&token), "127.0.0.1:0").await?;
    let pusher = Instance::start("pusher", settings(&token), "127.0.0.1:0").await?;
    eventually("the caller knows the pusher with a token", async || {
        let known = caller.metric("godwit_utils_known_instances{service=\"pusher\"}").await?;
        ensure!(known == 1.0, "{known}");
        Ok(())
    })
    .await?;
    let found = healthy(&agent, &manager, &format!("{prefix}-pusher")).await?;
    let [only] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(only["Service"]["Tags"][1], json!("zone=north"), "{only}");
    assert_eq!(only["Service"]["Meta"]["zone"], json!("north"), "{only}");
    assert!(only["Service"]["Meta"]["version"].as_str().is_some_and(|version| !version.is_empty()), "{only}");
    drop(pusher);
    Ok(())
}

/// The healthy instances of a service in Consul.
async fn healthy(agent: &str, token: &str, service: &str) -> Result<Vec<Value>> {
    let path = format!("/v1/health/service/{service}?passing");
    let Value::Array(found) = consul(agent, token, "GET", &path, None).await?.json()? else {
        anyhow::bail!("not a list")
    };
    Ok(found)
}

async fn consul(agent: &str, token: &str, method: &str, path: &str, body: Option<Value>) -> Result<Answer> {
    let address = agent.trim_start_matches("http://");
    let body = body.map(|body| body.to_string());
    // Consul accepts its tokens as bearer tokens.
    let token = (!token.is_empty()).then_some(token);
    let answer = http::request(address, method, path, token, body.as_deref()).await?;
    ensure!(answer.status == 200, "{method} {path}: {answer:?}");
    Ok(answer)
}
