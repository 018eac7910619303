"""One frame: a person in a state, seen by a camera, as a picture, a mask and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.errors import BadConfig
from models.faces.state import FaceState
from models.training.heads import occluders as things
from models.training.heads.anatomy import Anatomy
from models.training.heads.backdrop import resized
from models.training.heads.camera import FRAME_CM, Camera
from models.training.heads.deform import normals, smoothstep
from models.training.heads.eyes import IRIS, lid_landmarks, lid_shadow
from models.training.heads.labels import Labels, Samples, labels_of
from models.training.heads.occluders import Occluder
from models.training.heads.person import Person
from models.training.heads.posing import OPEN_CM, Posed, Posing
from models.training.heads.raster.project import project, project_parallel
from models.training.heads.raster.strands import strands, strands_depth
from models.training.heads.raster.triangles import EMPTY, triangles
from models.training.heads.shade import tone
from models.training.heads.shade.resolve import resolve
from models.training.heads.shade.strands import light_strands
from models.training.heads.shade.vertices import diffuse_skin, light_vertices
from models.training.heads.shadow_mesh import coarse_triangles
from models.training.heads.strand_groups import Group, StrandGroups

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

# Share of the hair that is drawn and texels of the shadow map, by pixels and samples along an edge:
# what looks the same in less time.
_EFFORT = {
    (128, 1): (0.30, 128),
    (128, 2): (0.60, 128),
    (256, 1): (0.70, 160),
    (256, 2): (0.8, 192),
}
_FULL = (1.0, 192)
_SHADOW_CM = 40.0  # that the shadow map shows
_CASTER = 2.2  # texels of the shadow map; finer triangles need not cast shadows
_SHADOW_CENTRE = np.array([0.0, -1.0, 0.0], np.float32)
_BUMP = np.float32(0.0006)
_SMALL = 300  # pixels below which a texel of the larger textures is less than half a pixel
_LASHES_FROM = 384  # samples along an edge; below, the painted margin of the lids stands for them
_YIELD = np.float32(0.45)  # cm that the inner mouth steps back, or gums poke through thin chins


@dataclass(frozen=True, eq=False)
class Rendered:
    """Args:
    rgb: [S, S, 3] sRGB.
    mask: [S, S]: 0 background, 1 skin (with brows, lashes, stubble, beard, neck), 2 lips,
        3 eyes, 4 inner mouth, 5 hair, 6 cloth, 7 glasses, 8 something in front of it all.
    """

    rgb: U8
    mask: U8
    labels: Labels


class HeadRenderer:
    """Draws frames of one size. Owns its buffers: one thread at a time.

    The same person, state and camera give the same bits in any order, from a fresh or a used
    renderer and in another process on the same machine.

    Args:
        size: Pixels along an edge. samples: samples along a pixel's edge, 1 .. 4.
        hair_share: Of the strands that are drawn, 0 .. 1; None: as many as the size shows.
        shadow: Texels along the shadow map's edge; None: as many as the size shows.
    Raises:
        BadConfig: A number is out of range.
    """

    def __init__(
        self,
        anatomy: Anatomy,
        size: int,
        samples: int = 2,
        *,
        hair_share: float | None = None,
        shadow: int | None = None,
    ) -> None:
        if not (16 <= size <= 2048 and 1 <= samples <= 4):
            raise BadConfig(
                f"cannot draw {size} pixels with {samples} samples; need 16..2048, 1..4"
            )
        effort = _EFFORT.get((size, samples), _FULL)
        share = effort[0] if hair_share is None else hair_share
        self._shadow_size = effort[1] if shadow is None else shadow
        if not (0 < share <= 1 and 16 <= self._shadow_size <= 1024):
            raise BadConfig(f"hair_share {share} or shadow {self._shadow_size} is out of range")
        self.anatomy, self.size, self.samples = anatomy, size, samples
        self._posing = Posing(anatomy)
        edge = size * samples
        self._groups = StrandGroups(anatomy, share, samples > 1 or edge >= _LASHES_FROM)
        self._depth, self._mesh_depth = (np.zeros((edge, edge), np.float32) for _ in range(2))
        self._ids = np.zeros((edge, edge), np.int32)
        self._strand_rgb = np.zeros((edge, edge, 3), np.float32)
        self._tags = np.zeros((edge, edge), np.uint8)
        self._shadow = np.zeros((self._shadow_size, self._shadow_size), np.float32)
        n = anatomy.n
        self._normal, self._irr, self._spare = (np.zeros((n, 3), np.float32) for _ in range(3))
        self._lit, self._ao = np.zeros(n, np.float32), np.zeros(n, np.float32)
        self._seen_from = [np.zeros(n, np.float32) for _ in range(3)]  # x, y, 1 / depth
        self._kind, self._thin = _kinds(anatomy), _thin(anatomy)
        self._lids = lid_landmarks(anatomy)
        self._casting = coarse_triangles(anatomy, _CASTER * _SHADOW_CM / self._shadow_size)
        self._curve = tone.curve()
        self._strand_buffers: dict[str, tuple[npt.NDArray, ...]] = {}
        self._backdrop: tuple[Person, F32, U8] | None = None

    def render(
        self,
        person: Person,
        state: FaceState,
        camera: Camera = Camera(),  # noqa: B008 - frozen
        *,
        occluders: Sequence[Occluder] = (),
    ) -> Rendered:
        """A frame.

        Args:
            occluders: Things in front of the head.
        """
        posed = self._posing.move(person.rest, person.eye_centre, person.traits["soft"], state)
        normals(posed.triangles, posed.world, self._normal)
        self._occlude(person, posed)
        edge = self.size * self.samples
        scale = edge / FRAME_CM * camera.zoom * person.fit
        groups = self._groups.of(person, posed, state, self._normal, scale)
        shadow = self._cast_shadows(person, posed, groups)
        light = person.light
        lights = (light.sh, light.key, light.key_rgb, light.rim, light.rim_rgb)
        self._light(person, posed, lights, shadow)
        focal = np.float32(camera.focal(edge))
        distance = np.float32(camera.distance(person.fit))
        self._draw_mesh(posed, focal, distance)
        self._draw_strands(groups, lights, shadow, focal, distance)
        rgb, mask = self._resolve(person, posed, lights, focal)
        drawn = Samples(self._depth, self._mesh_depth, self._ids, self._tags, self.samples)
        labels = labels_of(self.anatomy, person, state, posed, camera, drawn)
        if occluders:
            things.draw(occluders, rgb, mask)
            labels = labels.behind(things.hide_landmarks(mask, labels.landmarks, labels.visible))
        return Rendered(rgb, mask, labels)

    def _occlude(self, person: Person, posed: Posed) -> None:
        """What each vertex sees of the surroundings in this pose."""
        an, ao, face = self.anatomy, self._ao, posed.face
        ao[:] = person.ao
        lid_shadow(face, an.eye0, an.n_left, an.n_eye, self._lids, ao)
        if not posed.open_mouth:
            return
        upper, lower = face[an.landmarks[62]], face[an.landmarks[66]]
        inner = face[an.mouth0 :]
        back = np.maximum(0.5 * (upper[2] + lower[2]) - 0.2 - inner[:, 2], 0)
        reach = np.where(an.is_teeth[an.mouth0 :], 2.8, 2.6)
        # Fades in as the lips part: nothing may appear at once.
        light = (0.22 + 0.72 * min(posed.gap / 0.9, 1)) * smoothstep(OPEN_CM * 0.5, 0.16, posed.gap)
        under_lip = smoothstep(-0.35, 0.25, upper[1] - inner[:, 1] + 0.22)
        ao[an.mouth0 :] = light * (0.13 + np.exp(-back / reach)) * under_lip

    def _cast_shadows(self, person: Person, posed: Posed, groups: list[Group]) -> tuple:
        """The key's depth map, as `light_vertices` takes it."""
        right, up, forward = person.light.seen_from_key
        scale, size = np.float32(self._shadow_size / _SHADOW_CM), np.float32(self._shadow_size)
        depth = self._shadow
        depth[:] = -1e3
        seen = [b[: posed.n] for b in self._seen_from]
        view = (right, up, forward, _SHADOW_CENTRE, scale, size)
        project_parallel(posed.world[: posed.n], *view, *seen)
        triangles(self._casting, *self._seen_from, depth, self._ids, False)
        for group in groups:
            if group.shades:
                x, y, z, _, _ = self._buffers(group)
                project_parallel(group.points, *view, x, y, z)
                strands_depth(group.per, x, y, z, depth, 2)
        return depth, right, up, forward, _SHADOW_CENTRE, scale

    def _light(self, person: Person, posed: Posed, lights: tuple, shadow: tuple) -> None:
        an = self.anatomy
        light_vertices(
            posed.world,
            self._normal,
            self._ao,
            person.ao_skin,
            self._kind,
            self._thin,
            posed.n,
            lights,
            shadow,
            self._irr,
            self._lit,
        )
        passes = 2 if self.size > 128 else 1
        diffuse_skin(self._irr, self._spare, an.nb, an.nb_ptr, an.n_skin, passes)

    def _draw_mesh(self, posed: Posed, focal: np.float32, distance: np.float32) -> None:
        seen = [b[: posed.n] for b in self._seen_from]
        middle = np.float32(self.size * self.samples * 0.5)
        project(posed.world[: posed.n], middle, middle, focal, distance, *seen)
        inner = seen[2][self.anatomy.mouth0 :]
        inner /= 1 + _YIELD * inner
        self._depth[:] = 0
        self._ids[:] = EMPTY
        triangles(posed.triangles, *self._seen_from, self._depth, self._ids, True)
        self._mesh_depth[:] = self._depth

    def _draw_strands(
        self,
        groups: list[Group],
        lights: tuple,
        shadow: tuple,
        focal: np.float32,
        distance: np.float32,
    ) -> None:
        middle = np.float32(self.size * self.samples * 0.5)
        camera = np.array([0, 0, distance], np.float32)
        for g in groups:
            x, y, z, rgb, seen = self._buffers(g)
            project(g.points, middle, middle, focal, distance, x, y, z)
            surface = (g.tone, g.ao, g.normal, g.turn, g.rgb, g.gloss, lights, camera, shadow)
            light_strands(g.points, g.per, *surface, x, y, z, self._mesh_depth, rgb, seen)
            target = (self._depth, self._ids, self._strand_rgb, self._tags)
            strands(g.per, x, y, z, rgb, seen, g.width, g.alpha, g.tag, *target)

    def _resolve(
        self, person: Person, posed: Posed, lights: tuple, focal: np.float32
    ) -> tuple[U8, U8]:
        an, size = self.anatomy, self.size
        rgb, mask = np.empty((size, size, 3), np.uint8), np.empty((size, size), np.uint8)
        texture = person.textures[-1 if size < _SMALL else 0]
        behind, behind_bytes = self._behind(person)
        resolve(
            (self.samples, self._depth, self._ids, self._strand_rgb, self._tags),
            (posed.triangles, an.mat, *self._seen_from[:2]),
            (an.uv, self._normal, self._irr, self._lit),
            texture,
            (an.eye0, person.eye_dir, person.iris, IRIS),
            (person.shirt_rgb, np.float32(person.traits["stripes"]), person.cloth),
            person.parts_rgb,
            lights,
            (np.float32(size * self.samples * 0.5), 1 / focal, _BUMP),
            (behind, behind_bytes, self._curve, person.light.exposure),
            rgb,
            mask,
        )
        return rgb, mask

    def _behind(self, person: Person) -> tuple[F32, U8]:
        """The backdrop at this size, linear and as bytes."""
        if self._backdrop is None or self._backdrop[0] is not person:
            linear = resized(person.backdrop, self.size)
            at = np.clip(linear * (person.light.exposure * tone.STEPS), 0, tone.ENTRIES - 1)
            self._backdrop = (person, linear, self._curve[at.astype(np.int32)])
        return self._backdrop[1], self._backdrop[2]

    def _buffers(self, group: Group) -> tuple[npt.NDArray, ...]:
        """x, y, 1 / depth, colour and whether it is seen, of a group's vertices."""
        n = len(group.points)
        kept = self._strand_buffers.get(group.name)
        if kept is None or len(kept[0]) != n:
            # Zeros: a hidden end keeps its colour, and NaN would become an index later on.
            x, y, z = (np.zeros(n, np.float32) for _ in range(3))
            kept = (x, y, z, np.zeros((n, 3), np.float32), np.zeros(n, np.bool_))
            self._strand_buffers[group.name] = kept
        return kept


def _kinds(anatomy: Anatomy) -> U8:
    """[n] as `light_vertices` has them."""
    kind = np.full(anatomy.n, 3, np.uint8)
    kind[: anatomy.n_skin] = 0
    kind[anatomy.eye0 : anatomy.shirt0] = 1
    kind[anatomy.shirt0 : anatomy.lash0] = 2
    return kind


def _thin(anatomy: Anatomy) -> F32:
    """[n] how much light the ears let through."""
    x, y = np.abs(anatomy.mean[:, 0]), anatomy.mean[:, 1]
    ear = smoothstep(7.5, 8.5, x) * smoothstep(-4.5, -2.5, y) * smoothstep(6.0, 5.0, y)
    ear[anatomy.n_skin :] = 0
    return ear.astype(np.float32)
