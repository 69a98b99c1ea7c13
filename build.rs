//! Takes from Swagger UI the two files that the page at `/docs` loads: its archive has 700, of which a browser needs no other.

use std::fs::File;
use std::io::{self, Cursor};
use std::path::PathBuf;

use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

const FILES: [&str; 2] = ["swagger-ui-bundle.js", "swagger-ui.css"];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from).ok_or(io::ErrorKind::NotFound)?;
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    for file in FILES {
        let ending = format!("/dist/{file}");
        // The first folder has the version in its name.
        let name = archive
            .file_names()
            .filter_map(Result::ok)
            .find(|name| name.ends_with(&ending) && name.matches('/').count() == 2)
            .ok_or_else(|| io::Error::other(format!("Swagger UI has no `{ending}`")))?
            .into_owned();
        io::copy(&mut archive.by_name(&name)?, &mut File::create(out.join(file))?)?;
    }
    Ok(())
}
