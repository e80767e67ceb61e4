//! The programs as people start them: addresses, options, variables, output, and data they can't use.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use tests::{
    device::{new_id, texts},
    eventually, http,
    process::{self, Process},
    system::{DISTRIBUTED_PROGRAMS, Embedded, System as _, free_ports},
    world::{PASSWORD, World},
};

/// Runs a program to its end.
async fn run(program: &str, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let mut process = Process::start(program, arguments)?;
    let status = process.ended().await.with_context(|| format!("{program} {arguments:?}"))?;
    Ok((status.code(), process.output().join("\n")))
}

pub(crate) async fn an_address_works_as_people_write_it() -> Result<()> {
    for (listen, reach) in [
        ("0", vec!["127.0.0.1"]),
        ("localhost:0", vec![]),
        ("[::1]:0", vec!["[::1]"]),
        (":0", vec!["127.0.0.1", "[::1]"]),
        ("[::]:0", vec!["127.0.0.1", "[::1]"]),
    ] {
        let folder = tempfile::tempdir()?;
        let mut godwit = Process::spawn("godwit", Embedded::command(folder.path(), &[], listen)?)?;
        let url = godwit.line("listening on http://").await.with_context(|| listen.to_owned())?;
        let port = url.rsplit(':').next().context("no port")?.to_owned();
        // The printed address can be opened as it stands.
        let hosts = reach.iter().map(|host| format!("{host}:{port}")).chain([url.clone()]);
        for address in hosts {
            let answer = http::request(&address, "GET", "/health", None, None).await;
            let answer = answer.with_context(|| format!("--listen {listen}, at {address}"))?;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    Ok(())
}

pub(crate) async fn a_wrong_address_is_refused_with_its_forms() -> Result<()> {
    for text in ["::", "::1:7450", "[::1]", "127.0.0.1", "127.0.0.1:99999", "http://127.0.0.1:80", "port"] {
        for more in [&[][..], &["--check-config"]] {
            let arguments = [&["--listen", text][..], more].concat();
            let (code, output) = run("godwit", &arguments).await?;
            assert_eq!(code, Some(64), "{arguments:?}: {output}");
            let sentence = format!(
                "--listen {text}: gateway.listen: must be an address: HOST:PORT, [IPV6]:PORT, :PORT or PORT"
            );
            ensure!(output.contains(&sentence), "{output}");
        }
    }
    for (program, key) in DISTRIBUTED_PROGRAMS.into_iter().zip(["db", "pusher", "consumer", "gateway"]) {
        for more in [&[][..], &["--check-config"]] {
            let setting = format!("{key}.admin_listen=127.0.0.1");
            let (code, output) = run(program, &[&["--set", &setting][..], more].concat()).await?;
            assert_eq!(code, Some(64), "{program}: {output}");
            ensure!(output.contains(&format!("{key}.admin_listen: must be an address")), "{output}");
        }
    }
    Ok(())
}

pub(crate) async fn an_address_in_use_is_named() -> Result<()> {
    let first = Embedded::start(&[]).await?;
    let folder = tempfile::tempdir()?;
    let address = &first.gateways()[0];
    let mut second = Process::spawn("godwit", Embedded::command(folder.path(), &[], address)?)?;
    let status = second.ended().await?;
    let output = second.output().join("\n");
    ensure!(status.code() == Some(1) && output.contains(&format!("cannot listen on {address}")), "{output}");
    Ok(())
}

pub(crate) async fn a_variable_that_sets_nothing_is_named_with_the_nearest_setting() -> Result<()> {
    for program in ["godwit", "ws-gateway", "consumer", "db-service", "pusher"] {
        let output = Command::new(process::path(program)?)
            .arg("--check-config")
            .env("GODWIT_GATEWAY_LISTEN", "127.0.0.1:7460")
            .env("GODWIT_PUSHER_SERVICE_HOST", "10.0.0.1")
            .output()?;
        let warnings = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program}: {warnings}");
        ensure!(warnings.contains("did you mean GODWIT_GATEWAY__LISTEN?"), "{program}: {warnings}");
        ensure!(!warnings.contains("SERVICE_HOST"), "{program}: {warnings}");
    }
    Ok(())
}

pub(crate) async fn every_option_is_documented() -> Result<()> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operate.md"))?;
    for program in ["godwit", "ws-gateway", "consumer", "db-service", "pusher"] {
        let (code, help) = run(program, &["--help"]).await?;
        assert_eq!(code, Some(0), "{help}");
        let words = help.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '[' | ']'));
        let options: Vec<_> = words.filter(|word| word.len() > 2 && word.starts_with("--")).collect();
        ensure!(options.len() > 4, "{help}");
        for option in options {
            ensure!(
                page.contains(&format!("`{option}")),
                "docs/operate.md does not have {option} of {program}"
            );
        }
    }
    Ok(())
}

/// The commands that a program printed, with the folder of its programs in front of PATH.
async fn try_commands(godwit: &mut Process, folder: &Path, home: &Path) -> Result<()> {
    godwit.line("try, in two other terminals:").await?;
    let commands = eventually("it prints four commands", async || {
        let output = godwit.output();
        // Lines of the log may be in between.
        let commands = output.iter().skip_while(|line| !line.starts_with("try,"));
        let commands: Vec<_> = commands.filter(|line| line.starts_with("  ")).cloned().collect();
        ensure!(commands.len() == 4, "{output:?}");
        Ok(commands)
    })
    .await?;
    let path = format!("{}:{}", folder.display(), std::env::var("PATH")?);
    let shell = |command: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env("PATH", &path).env("HOME", home).env("XDG_CONFIG_HOME", home);
        shell.env("GODWIT_PASSWORD", PASSWORD).env_remove("GODWIT_URL").env_remove("GODWIT_USER");
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        shell
    };
    for command in commands {
        let mut child = shell(&command).spawn()?;
        // A chat sends it; a registration has its password from the environment.
        let _ = child.stdin.take().context("it has a standard input")?.write_all(b"hi\n");
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

pub(crate) async fn the_printed_commands_work_for_installed_programs_on_any_port() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let programs = folder.path().join("bin");
    fs::create_dir(&programs)?;
    for program in ["godwit", "godwit-cli"] {
        symlink(process::path(program)?, programs.join(program))?;
    }
    // Found in PATH, and called by a path.
    for (number, program) in [Path::new("godwit"), &programs.join("godwit")].into_iter().enumerate() {
        let data = folder.path().join(format!("data{number}"));
        let mut command = Command::new("sh");
        command
            .args(["-c", "exec \"$0\" \"$@\""])
            .arg(program)
            .args(["--listen", "[::]:0", "--data"])
            .arg(&data);
        command.args(["--set", "gateway.admin_listen=0", "--set", "auth.argon2_memory_kib=64"]);
        command.env("PATH", format!("{}:{}", programs.display(), std::env::var("PATH")?));
        command.env_remove("CARGO_MANIFEST_DIR");
        let mut godwit = Process::spawn("godwit", command)?;
        let home = folder.path().join(format!("home{number}"));
        fs::create_dir(&home)?;
        try_commands(&mut godwit, &programs, &home).await.with_context(|| program.display().to_string())?;
    }
    Ok(())
}

pub(crate) async fn a_start_does_not_need_a_reader_of_its_output() -> Result<()> {
    let base = free_ports(2)?;
    let (listen, admin) = (format!("127.0.0.1:{base}"), format!("127.0.0.1:{}", base + 1));
    let folder = tempfile::tempdir()?;
    let mut child = Command::new(process::path("godwit")?)
        .args(["--listen", &listen, "--set", &format!("gateway.admin_listen={admin}"), "--data"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    drop((child.stdout.take(), child.stderr.take()));
    let ready = eventually("it is ready", async || {
        let answer = http::request(&admin, "GET", "/readyz", None, None).await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
    .await;
    let running = child.try_wait()?.is_none();
    child.kill()?;
    child.wait()?;
    ready?;
    ensure!(running, "it ended");
    Ok(())
}

/// The files of the data folder that the program writes with SQLite.
const FILES: [&str; 2] = ["log/log.db", "store/store.sqlite"];

/// Sets the version of a file, and returns the previous one. Nothing else may use the file.
fn set_version(path: &Path, version: i64) -> Result<i64> {
    let file = rusqlite::Connection::open(path)?;
    let previous = file.pragma_query_value(None, "user_version", |row| row.get(0))?;
    file.pragma_update(None, "user_version", version)?;
    Ok(previous)
}

/// Starts a program on data that it refuses, and returns its output.
async fn refused(data: &Path) -> Result<String> {
    let mut godwit = Process::spawn("godwit", Embedded::command(data, &[], "127.0.0.1:0")?)?;
    let status = godwit.ended().await?;
    let output = godwit.output().join("\n");
    ensure!(status.code() == Some(1), "{status}: {output}");
    Ok(output)
}

pub(crate) async fn damaged_and_newer_data_are_refused_by_file_and_remedy() -> Result<()> {
    let mut system = Embedded::start(&["gateway.drain=0s"]).await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    world.connect(&alice).await?.send(&conversation, &new_id(), "hello").await?;
    system.process().signal("TERM")?;
    system.process().ended().await?;
    for file in FILES {
        let path = system.data().join(file);
        let version = set_version(&path, 999).with_context(|| file.to_owned())?;
        let newer = fs::read(&path)?;
        let output = refused(&system.data()).await?;
        ensure!(output.contains("999") && output.contains("a newer release wrote"), "{file}: {output}");
        ensure!(fs::read(&path)? == newer, "{file} was changed");
        set_version(&path, version)?;
        let kept = fs::read(&path)?;
        fs::write(&path, "this is not a database ".repeat(500))?;
        let output = refused(&system.data()).await?;
        let name = path.to_string_lossy();
        ensure!(output.contains(&*name) && output.contains("damaged"), "{file}: {output}");
        fs::write(&path, &kept)?;
    }
    system.start_again().await?;
    let history = world.connect(&alice).await?.whole_history(&conversation).await?;
    assert_eq!(texts(&history), ["hello"]);
    Ok(())
}

pub(crate) async fn p7_without_free_descriptors_the_admin_port_answers_and_the_log_stays_short() -> Result<()>
{
    const LIMIT: usize = 160;
    let folder = tempfile::tempdir()?;
    let wrapper = vec!["prlimit".to_owned(), format!("--nofile={LIMIT}:{LIMIT}")];
    let mut system = Embedded::start_wrapped(wrapper, folder.path().into(), &[], "127.0.0.1:0").await?;
    let world = World::at_addresses_of(&system);
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let (mut from, mut to) = (world.connect(&alice).await?, world.connect(&bob).await?);
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(tokio::net::TcpStream::connect(world.gateway()).await?);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let lines = system.process().output().len();
    for number in 0..20 {
        from.send(&conversation, &new_id(), &format!("{number}")).await?;
    }
    assert_eq!(to.entries(20).await?.len(), 20);
    for path in ["/livez", "/metrics"] {
        let answer = http::request(system.admin(), "GET", path, None, None).await?;
        assert_eq!(answer.status, 200, "{path}");
    }
    let output = system.process().output();
    ensure!(output.len() - lines < 10, "the log floods: {}", output.join("\n"));
    ensure!(
        output.iter().any(|line| line.contains("WARN") && line.contains("LimitNOFILE")),
        "{}",
        output.join("\n")
    );
    drop(silent);
    eventually("devices can connect again", async || world.connect(&bob).await.map(drop)).await
}

pub(crate) async fn p7_the_limit_of_open_files_is_raised_at_the_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let wrapper = vec!["prlimit".to_owned(), "--nofile=160:4096".to_owned()];
    let mut system = Embedded::start_wrapped(wrapper, folder.path().into(), &[], "127.0.0.1:0").await?;
    let limits = fs::read_to_string(format!("/proc/{}/limits", system.process().id()))?;
    let line =
        limits.lines().find(|line| line.starts_with("Max open files")).context("no limit of open files")?;
    ensure!(line.split_whitespace().nth(3) == Some("4096"), "{line}");
    Ok(())
}
