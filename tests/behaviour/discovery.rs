//! How services find each other through Consul while instances and Consul itself come and go.

use crate::{
    distributed::{OWN_SERVERS, world_over},
    load::{Load, report},
};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{io::Write as _, time::Duration};
use tests::{
    eventually,
    http::{self, Answer},
    system::{DISTRIBUTED_PROGRAMS, Distributed, Instance, OwnServers, Servers, unique},
};
use tokio::time::{Instant, sleep};

/// What each caller of db-service knows of it.
const KNOWN: &str = "godwit_utils_known_instances{service=\"db-service\"}";
/// Programs that call db-service.
const CALLERS: [&str; 2] = ["ws-gateway", "consumer"];

pub(crate) async fn p9_every_caller_sees_within_a_second_who_comes_and_goes() -> Result<()> {
    let mut system = Distributed::start(&[]).await?;
    known_to_all(&mut system, 2).await?;
    let say = |what: &str, took: Duration| {
        // Whoever closed the output does not want to know.
        let _ = writeln!(std::io::stderr(), "{what}, seen by all callers: {} ms", took.as_millis());
    };
    let mut came = Vec::new();
    for _ in 0..3 {
        let another = system.start_another("db-service").await?;
        let took = known_to_all(&mut system, 3 + came.len()).await?;
        say("an instance is ready", took);
        ensure!(took < Duration::from_secs(1), "seen after {took:?}");
        came.push(another);
    }
    let leaves = &mut came[0];
    leaves.process().signal("TERM")?;
    let took = known_to_all(&mut system, 4).await?;
    say("SIGTERM", took);
    ensure!(took < Duration::from_secs(1), "seen after {took:?}");
    ensure!(leaves.process().ended().await?.success(), "{}", leaves.process().output().join("\n"));

    came[1].kill();
    let took = known_to_all(&mut system, 3).await?;
    say("SIGKILL", took);
    ensure!(took < Duration::from_secs(5), "seen after {took:?}");

    let hangs = &mut came[2];
    hangs.process().signal("STOP")?;
    let took = known_to_all(&mut system, 2).await?;
    say("SIGSTOP", took);
    ensure!(took < Duration::from_secs(8), "seen after {took:?}");
    hangs.process().signal("CONT")?;
    say("SIGCONT", known_to_all(&mut system, 3).await?);
    Ok(())
}

/// Waits until all callers know so many instances of db-service; gives how long that took.
async fn known_to_all(system: &mut Distributed, count: usize) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let mut known = Vec::new();
        for program in CALLERS {
            for caller in system.instances(program) {
                known.push(caller.metric(KNOWN).await.unwrap_or(0.0) as usize);
            }
        }
        if known.iter().all(|known| *known == count) {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < Duration::from_secs(30), "they know {known:?} instances, not {count}");
        sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn p9_consul_away_and_back_with_nothing_changes_nothing() -> Result<()> {
    let _one_at_a_time = OWN_SERVERS.lock().await;
    let servers = OwnServers::start()?;
    let mut system = Distributed::start_on(servers.addresses(), &[]).await?;
    let world = world_over(&system);
    let load = Load::start(&world).await?;
    known_to_all(&mut system, 2).await?;
    servers.run(&["kill", "consul"])?;
    // `GODWIT_TEST_AWAY=300` has it away for five minutes.
    let away = std::env::var("GODWIT_TEST_AWAY").map_or(Ok(5), |seconds| seconds.parse())?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(away) {
        load.goes_on().await.context("while consul is away")?;
        sleep(Duration::from_secs(1)).await;
    }
    known_to_all(&mut system, 2).await.context("while consul is away")?;
    // Nobody hears of one that dies now, and the calls go to the other.
    let dies = system.instances("db-service").next().context("there are two of each")?;
    dies.kill();
    load.goes_on().await.context("with one instance dead and consul away")?;
    known_to_all(&mut system, 2).await.context("nobody heard of it")?;

    for command in ["wipe", "start"] {
        servers.run(&[command, "consul"])?;
    }
    let begun = Instant::now();
    let agent = servers.addresses().consul;
    let prefix = system.prefix.clone();
    for program in DISTRIBUTED_PROGRAMS {
        let expected = if program == "db-service" { 1 } else { 2 };
        eventually(&format!("{program} is registered again"), async || {
            let found = passing(&agent, "", &format!("{prefix}-{program}")).await?;
            ensure!(found.len() == expected, "{found:?}");
            Ok(())
        })
        .await?;
    }
    let registered = begun.elapsed();
    known_to_all(&mut system, 1).await.context("the dead one is forgotten in the end")?;
    let forgotten = begun.elapsed();
    system.instances("db-service").next().context("there are two of each")?.start_again().await?;
    let took = known_to_all(&mut system, 2).await?;
    ensure!(took < Duration::from_secs(1), "changes are not seen at once any more: {took:?}");
    load.goes_on().await.context("with consul back")?;
    let counted = load.finish(&world).await?;
    report(&format!("consul away for {away} s, back without data"), counted);
    let _ = writeln!(
        std::io::stderr(),
        "after consul was back: all registered again by {registered:.1?}, the dead one forgotten by {forgotten:.1?}"
    );
    Ok(())
}

pub(crate) async fn p8_a_guarded_consul_takes_who_has_a_token() -> Result<()> {
    let _one_at_a_time = OWN_SERVERS.lock().await;
    let manager = uuid::Uuid::new_v4().to_string();
    let servers = OwnServers::start_guarded_consul(&manager)?;
    let agent = servers.addresses().consul;
    // What docs/discovery.md says that a token must be allowed.
    let prefix = format!("godwit-test-{}", unique());
    let rules = format!(
        "service_prefix \"{prefix}-\" {{ policy = \"write\" }}\nnode_prefix \"\" {{ policy = \"read\" }}"
    );
    ask(&agent, &manager, "PUT", "/v1/acl/policy", Some(json!({ "Name": "godwit", "Rules": rules }))).await?;
    let policies = json!({ "Policies": [{ "Name": "godwit" }] });
    let made = ask(&agent, &manager, "PUT", "/v1/acl/token", Some(policies)).await?.json()?;
    let token = made["SecretID"].as_str().context("no SecretID")?.to_owned();

    let redis = Servers::from_environment()?.redis;
    let settings = |token: &str| {
        vec![
            "discovery.kind=consul".to_owned(),
            "discovery.zone=north".to_owned(),
            format!("discovery.consul={agent}"),
            format!("discovery.prefix={prefix}"),
            format!("discovery.consul_token={token}"),
            format!("redis.url={redis}"),
            // The consumer gets no further than to know whom it would call.
            "kafka.brokers=127.0.0.1:1".to_owned(),
        ]
    };
    let mut stranger = Instance::start("pusher", settings("wrong"), "127.0.0.1:0").await?;
    eventually("it says that it was refused", async || {
        let said = stranger.process().output().join("\n");
        ensure!(said.contains("can't register") && said.contains("403"), "{said}");
        Ok(())
    })
    .await?;
    let caller = Instance::start_unready("consumer", settings(&token), "127.0.0.1:0").await?;
    let pusher = Instance::start("pusher", settings(&token), "127.0.0.1:0").await?;
    eventually("the caller knows the one that has a token", async || {
        let known = caller.metric("godwit_utils_known_instances{service=\"pusher\"}").await?;
        ensure!(known == 1.0, "{known}");
        Ok(())
    })
    .await?;
    let found = passing(&agent, &manager, &format!("{prefix}-pusher")).await?;
    let [only] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(only["Service"]["Tags"][1], json!("zone=north"), "{only}");
    assert_eq!(only["Service"]["Meta"]["zone"], json!("north"), "{only}");
    assert!(only["Service"]["Meta"]["version"].as_str().is_some_and(|version| !version.is_empty()), "{only}");
    drop(pusher);
    Ok(())
}

/// The healthy instances of a service, as Consul lists them.
async fn passing(agent: &str, token: &str, service: &str) -> Result<Vec<Value>> {
    let path = format!("/v1/health/service/{service}?passing");
    let Value::Array(found) = ask(agent, token, "GET", &path, None).await?.json()? else {
        anyhow::bail!("not a list")
    };
    Ok(found)
}

async fn ask(agent: &str, token: &str, method: &str, path: &str, body: Option<Value>) -> Result<Answer> {
    let address = agent.trim_start_matches("http://");
    let body = body.map(|body| body.to_string());
    // Consul takes its tokens this way too.
    let token = (!token.is_empty()).then_some(token);
    let answer = http::request(address, method, path, token, body.as_deref()).await?;
    ensure!(answer.status == 200, "{method} {path}: {answer:?}");
    Ok(answer)
}
