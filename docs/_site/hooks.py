"""Hooks of MkDocs: the READMEs become pages of the site, and every page is in the navigation.

Links lead from file to file of the repository. Here they are rewritten: a link to a page of the site becomes a link to that page,
and another file of the repository is copied into the site, below source/. A link to anything else stays, so that a strict build
reports it.
"""
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
# Files of the repository, outside of docs/, that are pages: path -> path in the site.
OUTSIDE = {
    "README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
    **{f"{name}/README.md": f"{name}.md" for name in ("faster_rcnn", "mask_rcnn", "refinedet")},
    "utils/mindrecord/README.md": "mindrecord.md", "utils/hccl_tools/README.md": "rank_tables.md",
    "ascend310_infer/README.md": "cpp.md", "docker/README.md": "docker.md",
}
CHINESE = "_CN.md"
OUTSIDE |= {source.replace(".md", CHINESE): page.replace(".md", CHINESE) for source, page in OUTSIDE.items()
            if (ROOT / source.replace(".md", CHINESE)).is_file()}
PAGES = {page: source for source, page in OUTSIDE.items()}
# The navigation of each language; pages that it does not name are added at the end.
ORDER = [
    "index", "faster_rcnn", "mask_rcnn", "refinedet",
    "data", "training", "configuration", "backbones", "weights", "conversion", "recipes",
    "evaluation", "better_detections", "inference", "export", "cpp", "api",
    "devices", "scripts", "platforms", "modelarts/README", "docker", "speed",
    "old_zoo", "troubleshooting", "mindrecord", "rank_tables", "contributing", "changelog"]
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
# The end of a line between two Chinese characters, which HTML shows as a space.
BREAK = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef])\n *(?=[\u3000-\u9fff\uff00-\uffef])")


def on_files(files, config):
    """Add the READMEs to the pages."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_config(config):
    """List the pages: a tab for each language."""
    docs = Path(config.docs_dir)
    names = {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} | set(PAGES)
    config.nav = [{"English": _ordered(name for name in names if not name.endswith(CHINESE))},
                  {"中文": _ordered(name for name in names if name.endswith(CHINESE))}]
    return config


def on_page_markdown(markdown, page, config, files):
    """Rewrite the links of a page, which are those of the repository, and join the lines of Chinese text."""
    here = page.file.src_uri
    source = PAGES.get(here, f"docs/{here}")

    def rewrite(match):
        address, _, anchor = match[2].partition("#")
        if not address or "://" in address or address.startswith("mailto:"):
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), address))
        uri = _in_site(target, config, files)
        if uri is None:
            return match[0]
        link = posixpath.relpath(uri, posixpath.dirname(here) or ".")
        return f"{match[1]}{link}{'#' + anchor if anchor else ''}{match[3]}"

    return LINK.sub(rewrite, BREAK.sub("", markdown))


def _in_site(target, config, files):
    """Return where a file of the repository is in the site; None if there is no such file."""
    if target in OUTSIDE:
        return OUTSIDE[target]
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    if not (ROOT / target).is_file():
        return None
    uri = f"source/{target}"
    if files.get_file_from_path(uri) is None:
        files.append(File.generated(config, uri, content=(ROOT / target).read_bytes()))
    return uri


def _ordered(names):
    def place(name):
        stem = name.removesuffix(CHINESE).removesuffix(".md")
        return (ORDER.index(stem) if stem in ORDER else len(ORDER), name)

    return sorted(names, key=place)
