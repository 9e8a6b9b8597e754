use std::time::Instant;
#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let store =
        runtime::image::Store::open(runtime::image::Config::new(args[1].clone().into())).unwrap();
    let t = Instant::now();
    match store.pull(&args[2], None).await {
        Ok(i) => println!(
            "{} layers {} MB in {:?}",
            i.layers.len(),
            i.size >> 20,
            t.elapsed()
        ),
        Err(e) => println!("{e} / {:?}", e),
    }
}
