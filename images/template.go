package images

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha1" // git's own digest
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"go.yaml.in/yaml/v4"
)

// pkgPrefix begins a text that stands for the image of a package's source.
const pkgPrefix = "@pkg:"

// packageSource is what a package's build.yml says about the name of its image.
// The file is another tool's: what else it says is not looked at.
type packageSource struct {
	Org   string   `yaml:"org"`
	Image string   `yaml:"image"`
	Tag   string   `yaml:"tag"`           // a text/template with .Hash
	Extra []string `yaml:"extra-sources"` // SOURCE:DESTINATION, which the digest covers as well
}

// gitPatience bounds each call of git: they read a few files and an index.
const gitPatience = time.Minute

// packageImage names the image that LinuxKit's "pkg build" makes of the source
// in a folder: ORG/IMAGE:HASH, where HASH is git's digest of the folder's tree in
// the last commit, with "-dirty-" and a digest of the contents if something has
// changed since. A folder that is in no repository has the tag "latest".
func packageImage(dir string) (string, error) {
	file := filepath.Join(dir, "build.yml")
	if info, err := os.Stat(file); err != nil {
		return "", err
	} else if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no file", file)
	}
	text, err := readYAML(file)
	if err != nil {
		return "", err
	}
	if len(text) > maxYAML {
		return "", fmt.Errorf("%s has more than %d bytes: no package is described by so many", file, maxYAML)
	}
	p := packageSource{Org: "linuxkit", Tag: "{{.Hash}}"}
	if err := yaml.Unmarshal(text, &p); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	if p.Image == "" {
		return "", fmt.Errorf("%s has no image", file)
	}
	hash, err := packageHash(dir, p.Extra)
	if err != nil {
		return "", err
	}
	tag, err := packageTag(p.Tag, hash)
	if err != nil {
		return "", fmt.Errorf("%s: tag: %w", file, err)
	}
	name := p.Org + "/" + p.Image + ":" + tag
	if first, _, _ := strings.Cut(name, "/"); !strings.ContainsAny(first, ".:") && first != "localhost" {
		name = "docker.io/" + name
	}
	return name, nil
}

func packageTag(form, hash string) (string, error) {
	t, err := template.New("tag").Option("missingkey=error").Parse(form)
	if err != nil {
		return "", err
	}
	var tag strings.Builder
	if err := t.Execute(&tag, map[string]string{"Hash": hash}); err != nil {
		return "", err
	}
	return cmp.Or(tag.String(), "latest"), nil
}

// packageHash is empty for a folder in no repository.
func packageHash(dir string, extra []string) (string, error) {
	if _, err := git(dir, "rev-parse", "--is-inside-work-tree"); err != nil {
		if exited(err) {
			return "", nil
		}
		return "", err
	}
	hash, err := treeHash(dir)
	if err != nil {
		return "", err
	}
	for i, source := range extra {
		from, _, ok := strings.Cut(source, ":")
		if !ok {
			return "", fmt.Errorf("extra-sources[%d] of %s: %q is not SOURCE:DESTINATION", i, dir, source)
		}
		if !filepath.IsAbs(from) {
			from = filepath.Join(dir, from)
		}
		more, err := treeHash(from)
		if err != nil {
			return "", err
		}
		hash += more
	}
	if len(extra) > 0 {
		hash = fmt.Sprintf("%x", sha1.Sum([]byte(hash)))
	}
	changed, err := contentHash(dir)
	if err != nil || changed == "" {
		return hash, err
	}
	return hash + "-dirty-" + changed[:7], nil
}

// treeHash is git's digest of a folder or file in the last commit.
func treeHash(path string) (string, error) {
	dir, name := path, ""
	if info, err := os.Stat(path); err != nil {
		return "", err
	} else if !info.IsDir() {
		dir, name = filepath.Split(path)
	}
	out, err := git(dir, "rev-parse", "--verify", "--quiet", "HEAD:./"+name)
	if exited(err) {
		return "", advisedf("git add and commit it", "%s is in no commit yet", path)
	}
	return strings.TrimSpace(out), err
}

// contentHash is a digest of what is in a folder, if that is not what was
// committed, and empty if it is. Like LinuxKit's it goes over the contents of
// files alone, tracked ones first, in the order and with the names that git
// prints: a name that git quotes is not found, and left out.
func contentHash(dir string) (string, error) {
	others, err := git(dir, "ls-files", "--exclude-standard", "--others")
	if err != nil {
		return "", err
	}
	_, err = git(dir, "diff", "--no-ext-diff", "--quiet", "HEAD", "--", ".")
	switch {
	case err == nil && others == "":
		return "", nil
	case err != nil && !exited(err):
		return "", err
	}
	tracked, err := git(dir, "ls-files")
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for name := range strings.Lines(tracked + others) {
		path := filepath.Join(dir, strings.TrimSuffix(name, "\n"))
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		_, err = io.Copy(sum, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), nil
}

// git runs git in a folder and returns what it prints. The user's own settings
// hold, but no program of the repository's is started.
func git(dir string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), gitPatience, fmt.Errorf("git did not answer in %v", gitPatience))
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir, "-c", "core.fsmonitor=false"}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", advisedf("install git, or write the image's name itself", "git is not here, and the tag is made of what it knows")
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", fmt.Errorf("git %s in %s: %w: %s", args[0], dir, err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// exited says whether a program ran and ended with another status than 0.
func exited(err error) bool {
	var e *exec.ExitError
	return errors.As(err, &e) && e.Exited()
}
