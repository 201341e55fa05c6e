//! A scheduler inside an actix-web server: it starts and stops with it, and a request adds a task.
//!
//! ```sh
//! cargo run --example actix_web --features web
//! ```
//!
//! Starts a server, sends it `POST /remind/tea`, prints the answer and, a moment later,
//! `reminder: tea`; then both end. Ctrl-C or SIGTERM ends them as well: runs that go on may end first.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use actix_web::web::{Data, Path};
use actix_web::{App, HttpResponse, HttpServer, Responder, error, post};
use callboard::prelude::*;

async fn remind(_: TaskContext, about: String) {
    println!("reminder: {about}");
}

/// A handler of the server: the handle is cheap to clone and can go anywhere.
#[post("/remind/{about}")]
async fn add_reminder(about: Path<String>, scheduler: Data<Handle>) -> actix_web::Result<impl Responder> {
    let at = scheduler.status().await.map_err(error::ErrorInternalServerError)?.last_seen;
    let task = Task::new("remind").args(&*about).trigger(Date::at(at + Duration::from_millis(300)));
    let id = scheduler.add(task).await.map_err(error::ErrorBadRequest)?;
    Ok(HttpResponse::Created().body(format!("task {id}")))
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = Registry::new().register("remind", remind);
    let scheduler = Scheduler::builder().registry(registry).build()?;

    let data = Data::new(scheduler.clone());
    let server = HttpServer::new(move || App::new().app_data(data.clone()).service(add_reminder))
        .workers(1)
        .bind(("127.0.0.1", 0))?;
    let address = server.addrs()[0];
    let run = callboard::web::run(server, scheduler);
    let stop = run.server();

    // In place of the world outside: one request, and a while later the end.
    actix_web::rt::spawn(async move {
        let answer = actix_web::rt::task::spawn_blocking(move || request(address)).await;
        println!("answer: {}", answer.expect("the request was sent")?);
        actix_web::rt::time::sleep(Duration::from_millis(800)).await;
        stop.stop(true).await;
        Ok::<_, std::io::Error>(())
    });

    // Ready when a signal came, or the server or the scheduler was stopped, and both have ended.
    run.await?;
    println!("stopped");
    Ok(())
}

fn request(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "POST /remind/tea HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}
